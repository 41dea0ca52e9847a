"""Tables of accuracy, RI and mRI with confidence intervals."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis.bootstrap import LIMITS, estimate, object_weights, over_runs, spread
from rib.analysis.classes import class_table, worst_classes
from rib.analysis.counts import (
    EVERY,
    STATE,
    Counts,
    State,
    count,
    read_objects,
    read_rows_of,
    write_counts,
)
from rib.analysis.coverage import Coverage, coverage, label_spaces
from rib.analysis.fit import fit_table, marked
from rib.analysis.ri import Groups, Ood, on_other_datasets, ood_accuracies
from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress, log
from rib.config.run import ALL, NO_TARGET, RUN_COLUMNS, Run, run_of
from rib.data.view import DatasetFiles, DatasetView


def accuracy_table(counts: Counts) -> pd.DataFrame:
    """One row per run and dataset: model, method, target, size, seed, dataset, n, correct, accuracy (percent)."""
    lines = []
    for place, state in enumerate(counts.states):
        if state[-1] is None:
            for dataset in counts.datasets:
                n, right = (
                    int(counts.images[dataset].sum()),
                    int(counts.correct[dataset][place].sum()),
                )
                lines.append((*state[:-1], dataset, n, right, 100 * right / n))
    return pd.DataFrame(lines, columns=[*RUN_COLUMNS, "dataset", "n", "correct", "accuracy"])


def roles_of(
    counts: Counts,
    target: str,
    ood_datasets: Collection[str],
    in_distribution: Collection[str],
    source_groups: Groups,
) -> dict[str, str]:
    """What each dataset is for runs on a target, as in the column `role` of accuracy.csv.

    Args:
        target: `none` for pretrained models.
        ood_datasets, in_distribution: datasets that count in RI, and those in distribution.
        source_groups: for leak-free results, source group by dataset.

    Returns:
        By dataset:
        `target`: the target itself;
        `ood`: it counts in RI;
        `shared`: leak-free, it has source images of the target or images identical to its, so only its other images
            count, if any;
        `in_distribution`: it does not count;
        `variant`: neither does it, since it is a variant of a dataset that is evaluated too.
    """
    whole = set(ood_datasets)
    if target != NO_TARGET:
        counted = on_other_datasets(
            counts.places, target, ood_datasets, source_groups, shared=counts.shared
        )
        whole = {name for name, objects in counted.items() if objects is EVERY}
    roles = {}
    for name in counts.datasets:
        if name == target:
            roles[name] = "target"
        elif name in whole:
            roles[name] = "ood"
        elif name in ood_datasets:
            roles[name] = "shared"
        else:
            roles[name] = "in_distribution" if name in in_distribution else "variant"
    return roles


def with_roles(accuracy: pd.DataFrame, counts: Counts, **datasets) -> pd.DataFrame:
    """An `accuracy_table` with the column role, before the column n; `datasets`: see `roles_of`."""
    roles = {target: roles_of(counts, target, **datasets) for target in accuracy["target"].unique()}
    cells = zip(accuracy["target"], accuracy["dataset"], strict=True)
    role = [roles[target][dataset] for target, dataset in cells]
    table = accuracy.copy()
    table.insert(table.columns.get_loc("n"), "role", role)
    return table


def ri_table(ood: Mapping[State, Ood], confidence: float) -> pd.DataFrame:
    """One row per run, without curves: model, method, target, size, seed, n, ri, ci_low, ci_high (percentage points).

    n is the number of images of the datasets in the RI.
    """
    runs = {state[:-1]: pair for state, pair in ood.items() if state[-1] is None}
    lines = [(*run, pair.images, *estimate(pair.change, confidence)) for run, pair in runs.items()]
    return pd.DataFrame(lines, columns=[*RUN_COLUMNS, "n", "ri", "ci_low", "ci_high"])


def seen_table(
    ri: pd.DataFrame,
    counts: Counts,
    covered: Coverage,
    weights: np.ndarray,
    confidence: float,
    **choices,
):
    """`ri_table`, and RI over images of classes that were seen, and not, in training.

    The further columns are ri_seen, seen_low, seen_high, n_seen and the same for unseen, NaN if there are no such images.
    `choices` are ood_datasets and source_groups of `ood_accuracies`.
    """
    counts = counts.of([place for place, state in enumerate(counts.states) if state[-1] is None])
    others = {run: {name: ~seen for name, seen in own.items()} for run, own in covered.items()}
    for which, among in (("seen", covered), ("unseen", others)):
        part = ri_table(ood_accuracies(counts, weights, **choices, among=among), confidence).astype(
            {"n": "Int64"}
        )
        names = {
            "ri": f"ri_{which}",
            "ci_low": f"{which}_low",
            "ci_high": f"{which}_high",
            "n": f"n_{which}",
        }
        ri = ri.merge(
            part[[*RUN_COLUMNS, *names]].rename(columns=names), on=RUN_COLUMNS, how="left"
        )
    return ri


def curve_table(ood: Mapping[State, Ood], confidence: float) -> pd.DataFrame:
    """States of curves: the columns of `ri_table`, accuracy on the target (downstream) and on the others (ood).

    Accuracies are in percent, ood with a confidence interval; downstream is NaN if the target is not evaluated.
    """
    lines = [
        (
            *state,
            run.on_target[1, 0],
            *estimate(run.after, confidence),
            run.images,
            *estimate(run.change, confidence),
        )
        for state, run in ood.items()
        if state[-1] is not None
    ]
    accuracies = ["downstream", "ood", "ood_low", "ood_high"]
    return pd.DataFrame(lines, columns=[*STATE, *accuracies, "n", "ri", "ci_low", "ci_high"])


def mri_tables(ood: Mapping[State, Ood], confidence: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """mRI per model, method and size, and the two mean accuracies whose difference it is, without curves.

    Means are over targets and seeds; on_target is without targets that are not evaluated.

    Returns:
        mri: model, method, size, mri, ci_low, ci_high, ood_before, ood_after, on_target with its confidence interval,
        on_target_before (the pretrained model's), number of targets and seeds, the spread of RI over targets and that of mRI
        over seeds with fixed objects (see `spread`);
        ood: model, method, size, when (before or after), accuracy, ci_low, ci_high. All in percent.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Ood]]] = {}
    for (model, method, target, size, _, alpha), pair in ood.items():
        if alpha is None:
            groups.setdefault((model, method, size), {}).setdefault(target, []).append(pair)
    mri, means = [], []
    for key, runs in groups.items():
        change, before, after, own = (
            np.array([[getattr(pair, name) for pair in pairs] for pairs in runs.values()])
            for name in ("change", "before", "after", "on_target")
        )
        evaluated = ~np.isnan(own[:, 0, 0, 0])
        own = own[evaluated] if evaluated.any() else own[:1, :1]
        on_target = *over_runs(own[:, :, 1], confidence, LIMITS), own[:, :, 0, 0].mean()
        found = (
            over_runs(change, confidence),
            *(over_runs(each, confidence, LIMITS) for each in (before, after)),
        )
        spreads = [spread(change[..., 0].mean(axis=axis), confidence) for axis in (1, 0)]
        (targets, *over_targets), (seeds, *over_seeds) = spreads
        mri.append(
            (
                *key,
                *found[0],
                found[1][0],
                found[2][0],
                *on_target,
                targets,
                seeds,
                *over_targets,
                *over_seeds,
            )
        )
        means += [
            (*key, when, *numbers)
            for when, numbers in zip(("before", "after"), found[1:], strict=True)
        ]
    names = ["model", "method", "size"]
    on_target = [f"on_target{end}" for end in ("", "_low", "_high", "_before")]
    apart = [f"{over}_{number}" for over in ("target", "seed") for number in ("sd", "low", "high")]
    columns = [
        *names,
        "mri",
        "ci_low",
        "ci_high",
        "ood_before",
        "ood_after",
        *on_target,
        "targets",
        "seeds",
        *apart,
    ]
    by_when = pd.DataFrame(means, columns=[*names, "when", "accuracy", "ci_low", "ci_high"])
    return pd.DataFrame(mri, columns=columns), by_when


def read_fits(manifests: Iterable[Path]) -> dict[Run, dict[str, float]]:
    """Fit of the checkpoints of each run, by key, from the manifests of its evaluations.

    Raises:
        UserError: the runs were evaluated on different kinds of devices.
    """
    evaluated = {path: read_json(path) for path in manifests}
    devices = {facts["device"] for facts in evaluated.values()}
    if len(devices) > 1:
        raise UserError(
            f"the grid mixes evaluations on {' and '.join(sorted(devices))}, whose precision differs; set "
            "compute.device in config.yaml to one of them and run again."
        )
    return {run_of(path): facts["fit"] for path, facts in evaluated.items()}


def grid_tables(
    *,
    rows: Iterable[Path],
    indexes: Iterable[Path],
    manifests: Iterable[Path],
    datasets: Collection[DatasetFiles],
    view: DatasetView,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    replicates: int,
    confidence: float,
    seed: int,
    fit: Mapping,
    outputs: Mapping[str, Path],
    in_distribution: Collection[str] = (),
    compared: Collection[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """accuracy, fit, ri, mri, ood, curves, classes and worst_classes from the evaluation rows of a grid.

    Args:
        outputs: where counts and mri_json are written; without an output there is no table classes.
        fit: settings of `fit_table`.
        in_distribution: datasets of the table in_distribution, like mri.csv with change, before and after; none: no
            table. They do not count in RI.
        compared: names of the runs that means, curves and counts are of, pretrained models' among them; None: all.
        datasets: those of the indexes, of which the targets' training images tell what classes are seen.

    Raises:
        UserError: the runs were evaluated on different kinds of devices.
    """
    fits = read_fits(manifests)
    files = Progress(rows, desc="reading rows", unit="file")
    counts = count(read_rows_of(files), read_objects(indexes, source_groups))
    names = [str(Run(**dict(zip(RUN_COLUMNS, state, strict=False)))) for state in counts.states]
    shared = counts.of(
        [place for place, name in enumerate(names) if compared is None or name in compared]
    )
    write_counts(shared, outputs["counts"])
    weights = object_weights(counts.objects, replicates, seed)
    choices = {"ood_datasets": ood_datasets, "source_groups": source_groups}
    ood = ood_accuracies(counts, weights, **choices)
    of_shared = {state: ood[state] for state in shared.states if state in ood}
    mri, means = mri_tables(of_shared, confidence)
    ri = ri_table(ood, confidence)
    if source_groups is not None:
        for target, images in ri.groupby("target")["n"].first().items():
            log.info(
                "leak-free: for the target %s, %d images of other datasets remain", target, images
            )
    accuracy = with_roles(
        accuracy_table(counts), counts, in_distribution=in_distribution, **choices
    )
    classes, fits = (
        class_table(counts, label_spaces(datasets), source_groups),
        fit_table(fits, accuracy, **fit),
    )
    tables = {
        "accuracy": accuracy,
        "fit": fits,
        "ri": seen_table(
            ri, counts, coverage(counts, datasets, view), weights, confidence, **choices
        ),
        "mri": mri,
        "ood": means,
        "curves": curve_table(of_shared, confidence),
        "worst_classes": worst_classes(classes, ood_datasets),
    }
    if "classes" in outputs:
        tables["classes"] = marked(classes, fits)  # here, since it is by far the largest
    if in_distribution:
        inside, _ = mri_tables(ood_accuracies(shared, weights, in_distribution), confidence)
        names = {"mri": "change", "ood_before": "before", "ood_after": "after"}
        tables["in_distribution"] = inside.rename(columns=names)
    write_json(outputs["mri_json"], json_by_method(mri))
    return tables


def tradeoff_table(
    *, rows: Iterable[Path], indexes: Iterable[Path], choices: Mapping
) -> pd.DataFrame:
    """Accuracy on the target and mRI in the course of training, from rows of pretrained models and of snapshots.

    Args:
        rows: alpha of a snapshot is the share of training.

    Returns:
        model, method, size, trained (percent of all steps; at 0 the pretrained model), and means over targets and seeds:
        on_target (percent), mri (percentage points).
    """
    counts = count(read_rows_of(rows), read_objects(indexes, choices.get("source_groups")))
    lines = []
    for state, pair in ood_accuracies(
        counts, object_weights(counts.objects, 0, 0), **choices
    ).items():
        for trained, place, mri in ((0, 0, 0.0), (100 * state[-1], 1, pair.change[0])):
            lines.append((*state[:2], state[3], trained, pair.on_target[place, 0], mri))
    if not lines:
        raise UserError(
            "representations: no fine-tuned run is chosen; choose methods and targets in config.yaml."
        )
    keys = ["model", "method", "size", "trained"]
    return (
        pd.DataFrame(lines, columns=[*keys, "on_target", "mri"]).groupby(keys).mean().reset_index()
    )


def json_by_method(mri: pd.DataFrame) -> dict:
    """mRI as {model: {method: mri}} for `dvc metrics show`, rounded as in the CSV.

    A training subset other than `all` is appended to the method: `ft, 0.5`.
    """
    nested: dict[str, dict] = {}
    for line in mri.to_dict("records"):
        method = line["method"] if line["size"] == ALL else f"{line['method']}, {line['size']}"
        nested.setdefault(line["model"], {})[method] = round(line["mri"], 6)
    return nested
