"""Tables of accuracy, RI and mRI with confidence intervals."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rib.base.devices import join_kinds, kind_of_device
from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.progress import Progress, log
from rib.data.view import DatasetFiles
from rib.schema.layout import Layout
from rib.schema.run import ALL, MEAN, NO_TARGET, RUN_COLUMNS, Run
from rib.statistics.bootstrap import LIMITS, estimate, object_weights, over_runs, spread
from rib.statistics.classes import class_table, worst_classes
from rib.statistics.counts import (
    Counts,
    RowFiles,
    count,
    read_objects,
    read_rows_of,
    write_counts,
)
from rib.statistics.coverage import coverage, label_spaces
from rib.statistics.fit import fit_table, marked
from rib.statistics.objects import ALL_INDICES, SourceGroups
from rib.statistics.ri import ObjectsByTraining, Ood, ood_accuracies
from rib.statistics.scored_state import STATE_COLUMNS, ScoredState
from rib.statistics.statistics_settings import GridTableSettings

GROUP = ["model", "method", "size"]  # each combination has one mRI
# Role of a run's target. mRI and other means are over targets that are out of distribution.
OOD = "ood"
IN_DISTRIBUTION = "in_distribution"
# Tables with a row for each run, or several.
TABLES_OF_RUNS = {"accuracy", "fit", "ri", "curves", "id_targets_fit"}
RI_COLUMNS = [*RUN_COLUMNS, "target_role", "n", "ri", "ci_low", "ci_high"]


def accuracy_table(counts: Counts) -> pd.DataFrame:
    """Accuracy of each run on each dataset, without curves (runs with a network for each alpha).

    Columns: model, method, target, size, seed, dataset, n (images), correct, accuracy (percent).
    """
    lines = []
    for i, state in enumerate(counts.states):
        if state.is_on_curve:
            continue
        run_values = state.run.values(RUN_COLUMNS)
        for dataset in counts.datasets:
            images = int(counts.images[dataset].sum())
            correct = int(counts.correct[dataset][i].sum())
            accuracy = 100 * correct / images
            lines.append((*run_values, dataset, images, correct, accuracy))
    return pd.DataFrame(lines, columns=[*RUN_COLUMNS, "dataset", "n", "correct", "accuracy"])


def roles_of(
    counts: Counts,
    target: str,
    ood_datasets: Collection[str],
    in_distribution: Collection[str],
    source_groups: SourceGroups,
) -> dict[str, str]:
    """Role of each dataset for runs on a target, such as {"noto": "target", "twemoji": "ood"}.

    Args:
        target: `none` for pretrained models.
        ood_datasets, in_distribution: datasets that count in RI, and datasets in distribution.

    Returns:
        By dataset:
        `target`: the target itself;
        `ood`: it counts in RI;
        `shared`: leak-free, it has source images of the target or images identical to the target's,
        so only its other images count, if any;
        `in_distribution`: it does not count;
        `variant`: it does not count, since it is a variant of another evaluated dataset.
    """
    counted_in_full = set(ood_datasets)
    if target != NO_TARGET:
        counted_objects = counts.counted(target, ood_datasets, source_groups)
        counted_in_full = {
            dataset for dataset, objects in counted_objects.items() if objects is ALL_INDICES
        }
    roles = {}
    for dataset in counts.datasets:
        if dataset == target:
            roles[dataset] = "target"
        elif dataset in counted_in_full:
            roles[dataset] = "ood"
        elif dataset in ood_datasets:
            roles[dataset] = "shared"
        elif dataset in in_distribution:
            roles[dataset] = "in_distribution"
        else:
            roles[dataset] = "variant"
    return roles


def with_roles(
    accuracy: pd.DataFrame,
    counts: Counts,
    ood_datasets: Collection[str],
    in_distribution: Collection[str],
    source_groups: SourceGroups,
) -> pd.DataFrame:
    """An accuracy table with the column role (`roles_of`) before the column n.

    Args:
        accuracy: columns target (`none` for pretrained models), dataset, n and others.
        ood_datasets, in_distribution: datasets that count in RI, and datasets in distribution.
    """
    roles_of_target = {
        target: roles_of(counts, target, ood_datasets, in_distribution, source_groups)
        for target in accuracy["target"].unique()
    }
    roles = []
    for target, dataset in zip(accuracy["target"], accuracy["dataset"], strict=True):
        roles.append(roles_of_target[target][dataset])
    table = accuracy.copy()
    position = list(table.columns).index("n")
    table.insert(position, "role", roles)
    return table


def ri_table(ood: Mapping[ScoredState, Ood], confidence: float) -> pd.DataFrame:
    """RI (mean change of accuracy on other datasets) of each run, without curves.

    Args:
        ood: accuracies before and after fine-tuning, by fine-tuned network.

    Returns:
        model, method, target, size, seed, n (images of the datasets in the RI), ri, ci_low, ci_high
        (percentage points).
    """
    lines = []
    for state, accuracies in ood.items():
        if not state.is_on_curve:
            ri, low, high = estimate(accuracies.change, confidence)
            lines.append((*state.run.values(RUN_COLUMNS), accuracies.images, ri, low, high))
    return pd.DataFrame(lines, columns=[*RUN_COLUMNS, "n", "ri", "ci_low", "ci_high"])


def seen_table(
    ri: pd.DataFrame,
    counts: Counts,
    seen: ObjectsByTraining,
    weights: np.ndarray,
    confidence: float,
    ood_datasets: Collection[str] | None,
    source_groups: SourceGroups,
) -> pd.DataFrame:
    """RI over images of classes that were seen in training, and over images of other classes.

    Args:
        ri: from `ri_table`, one row per run; columns are added to it.
        seen: for each run, objects of classes that its training images show.
        weights: (replicates, objects), how often a bootstrap replicate counts each object.

    Returns:
        `ri` with ri_seen, seen_low, seen_high, n_seen and the same for unseen, NaN without such
        images.
    """
    without_curves = counts.without_curves()
    with_seen = ri
    for seen_or_unseen, objects in (("seen", seen), ("unseen", seen.inverted())):
        ood = ood_accuracies(without_curves, weights, ood_datasets, source_groups, objects)
        ri_over_objects = ri_table(ood, confidence).astype({"n": "Int64"})
        new_names = {
            "ri": f"ri_{seen_or_unseen}",
            "ci_low": f"{seen_or_unseen}_low",
            "ci_high": f"{seen_or_unseen}_high",
            "n": f"n_{seen_or_unseen}",
        }
        added_columns = ri_over_objects[[*RUN_COLUMNS, *new_names]].rename(columns=new_names)
        with_seen = with_seen.merge(added_columns, on=RUN_COLUMNS, how="left")
    return with_seen


def leak_free_accuracies(
    counts: Counts,
    weights: np.ndarray,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str],
) -> dict[ScoredState, Ood]:
    """Leak-free accuracies before and after fine-tuning, by state.

    States are missing if all other datasets show source images of their target only.

    Args:
        weights: (replicates, objects), how often a bootstrap replicate counts each object.
    """
    accuracies: dict[ScoredState, Ood] = {}
    targets = {state.run.target for state in counts.states if not state.is_pretrained}
    for target in sorted(targets):
        states_of_target = [
            i
            for i, state in enumerate(counts.states)
            if state.is_pretrained or state.run.target == target
        ]
        counts_of_target = counts.select_states(states_of_target)
        try:
            accuracies.update(
                ood_accuracies(counts_of_target, weights, ood_datasets, source_groups)
            )
        except UserError:
            log.info("leak-free: for the target %s, no image of other datasets remains", target)
    return accuracies


def leak_free_table(
    ood: Mapping[ScoredState, Ood],
    leak_free: Mapping[ScoredState, Ood],
    sharing_targets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """RI on targets that share source images with other datasets, with and without these images.

    Args:
        ood: accuracies before and after fine-tuning, of states on all targets.
        leak_free: leak-free accuracies; some states may be missing.
        sharing_targets: targets that share source images with other datasets.

    Returns:
        A row for each model, method and size on each sharing target (means over seeds), and one
        over all targets, with target `mean`: model, method, size, target, targets and
        sharing_targets (numbers), ri and leak_free, each with its interval (percentage points).
        leak_free is NaN where no other images are left; a mean is NaN if this holds for one of its
        targets.
    """
    tables = []
    for target in (*sharing_targets, MEAN):
        states = [state for state in ood if target in (state.run.target, MEAN)]
        rows, _ = mri_tables({state: ood[state] for state in states}, confidence)
        leak_free_rows, _ = mri_tables(
            {state: leak_free[state] for state in states if state in leak_free}, confidence
        )
        rows = rows.rename(columns={"mri": "ri"})
        leak_free_rows = leak_free_rows.rename(
            columns={"mri": "leak_free", "ci_low": "leak_free_low", "ci_high": "leak_free_high"}
        )
        # A leak-free mean over fewer targets is another mean: `targets` must agree.
        columns_of_row = [*GROUP, "targets"]
        table = rows[[*columns_of_row, "ri", "ci_low", "ci_high"]].merge(
            leak_free_rows[[*columns_of_row, "leak_free", "leak_free_low", "leak_free_high"]],
            on=columns_of_row,
            how="left",
        )
        targets_of_rows = accuracies_of_methods({state: ood[state] for state in states}).values()
        sharing = [len(targets.keys() & set(sharing_targets)) for targets in targets_of_rows]
        table.insert(len(GROUP), "target", target)
        table.insert(len(columns_of_row) + 1, "sharing_targets", sharing)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def curve_table(ood: Mapping[ScoredState, Ood], confidence: float) -> pd.DataFrame:
    """Accuracies and RI of the networks on curves, which some runs have in place of one network.

    `ood` has accuracies before and after fine-tuning, by fine-tuned network; networks that are not
    on a curve are ignored.

    Columns: model, method, target, size, seed, alpha; downstream (accuracy on the target, NaN if
    not evaluated) and ood (accuracy on the other datasets) with its confidence interval, in
    percent; n, ri, ci_low and ci_high as in `ri_table`.
    """
    lines = []
    for state, accuracies in ood.items():
        if state.is_on_curve:
            lines.append(
                (
                    *state.column_values(),
                    accuracies.on_target_after[0],
                    *estimate(accuracies.after, confidence),
                    accuracies.images,
                    *estimate(accuracies.change, confidence),
                )
            )
    accuracy_columns = ["downstream", "ood", "ood_low", "ood_high"]
    ri_columns = ["n", "ri", "ci_low", "ci_high"]
    return pd.DataFrame(lines, columns=[*STATE_COLUMNS, *accuracy_columns, *ri_columns])


MRI_COLUMNS = [
    *GROUP,
    "mri",
    "ci_low",
    "ci_high",
    "ood_before",
    "ood_after",
    "on_target",
    "on_target_low",
    "on_target_high",
    "on_target_before",
    "targets",
    "seeds",
    "target_sd",
    "target_low",
    "target_high",
    "seed_sd",
    "seed_low",
    "seed_high",
]


def mri_tables(
    ood: Mapping[ScoredState, Ood], confidence: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """mRI per model, method and size, and the two mean accuracies whose difference it is.

    Means are over targets and seeds, without curves; on_target is over the evaluated targets.

    Args:
        ood: accuracies before and after fine-tuning, by fine-tuned network.

    Returns:
        mri: model, method, size, mri, ci_low, ci_high, ood_before, ood_after, on_target with its
        confidence interval, on_target_before (the pretrained model's), number of targets and seeds,
        the spread of RI over targets and of mRI over seeds with fixed objects (standard deviation
        and ends of the t interval);
        ood: model, method, size, when (before or after), accuracy, ci_low, ci_high. All in percent.
    """
    mri_lines = []
    ood_lines = []
    for group, accuracies_by_target in accuracies_of_methods(ood).items():
        accuracies = list(accuracies_by_target.values())
        change = values_of_runs(accuracies, "change")
        mri = over_runs(change, confidence)
        before = over_runs(values_of_runs(accuracies, "before"), confidence, LIMITS)
        after = over_runs(values_of_runs(accuracies, "after"), confidence, LIMITS)
        ood_lines.append((*group, "before", *before))
        ood_lines.append((*group, "after", *after))

        ri_of_runs = change[..., 0]  # (targets, seeds), without resampling
        targets, *over_targets = spread(ri_of_runs.mean(axis=1), confidence)
        seeds, *over_seeds = spread(ri_of_runs.mean(axis=0), confidence)
        mean_before, _, _ = before
        mean_after, _, _ = after
        mri_lines.append(
            (
                *group,
                *mri,
                mean_before,
                mean_after,
                *_on_target(accuracies, confidence),
                targets,
                seeds,
                *over_targets,
                *over_seeds,
            )
        )
    mri_table = pd.DataFrame(mri_lines, columns=MRI_COLUMNS)
    ood_columns = [*GROUP, "when", "accuracy", "ci_low", "ci_high"]
    return mri_table, pd.DataFrame(ood_lines, columns=ood_columns)


def _with_mri_of_others(
    mri: pd.DataFrame, ood_without: Mapping[ScoredState, Ood], confidence: float
) -> pd.DataFrame:
    """Adds without_filtered, mRI without adversarially filtered datasets, and its interval."""
    # `ood_without` are accuracies without these datasets.
    # Such a dataset has the images that some network got wrong (ImageNet-A: Hendrycks et al. 2021,
    # arXiv 1907.07174). A network that resembles the filter starts low there, and nearly any change
    # of its weights raises its accuracy (regression to the mean).
    without, _ = mri_tables(ood_without, confidence)
    new_names = {
        "mri": "without_filtered",
        "ci_low": "without_filtered_low",
        "ci_high": "without_filtered_high",
    }
    return mri.merge(without[[*GROUP, *new_names]].rename(columns=new_names), on=GROUP, how="left")


def accuracies_of_methods(
    ood: Mapping[ScoredState, Ood],
) -> dict[tuple[str, str, str], dict[str, list[Ood]]]:
    """Accuracies of the runs of each model, method and size by target, without curves.

    An example is {("lite0", "ft", "all"): {"noto": [...], ...}}, a list over seeds for each target.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Ood]]] = {}
    for state, accuracies in ood.items():
        if not state.is_on_curve:
            run = state.run
            by_target = groups.setdefault((run.model, run.method, run.size), {})
            by_target.setdefault(run.target, []).append(accuracies)
    return groups


def values_of_runs(accuracies: list[list[Ood]], attribute: str) -> np.ndarray:
    """An attribute of all runs of a method, such as `change`: (targets, seeds, 1 + replicates).

    Args:
        accuracies: a list over seeds for each target.
    """
    values_of_targets = []
    for runs_on_target in accuracies:
        values_of_targets.append([getattr(run, attribute) for run in runs_on_target])
    return np.array(values_of_targets)


def _on_target(accuracies: list[list[Ood]], confidence: float) -> tuple[float, float, float, float]:
    """Accuracy on the targets: mean after, ends of its interval, and mean before (percent)."""
    before = values_of_runs(accuracies, "on_target_before")  # (targets, seeds, 1 + replicates)
    after = values_of_runs(accuracies, "on_target_after")
    is_evaluated = ~np.isnan(before[:, 0, 0])
    if is_evaluated.any():
        before = before[is_evaluated]
        after = after[is_evaluated]
    else:  # all are NaN, so one suffices
        before = before[:1, :1]
        after = after[:1, :1]
    mean_after, low, high = over_runs(after, confidence, LIMITS)
    mean_before = before[:, :, 0].mean()
    return mean_after, low, high, mean_before


def read_fits(
    manifests: Iterable[Path], methods: Collection[str] | None = None
) -> dict[Run, dict[str, float]]:
    """Fit (accuracy on the training images, 0 to 1) of the checkpoints that make up each run.

    Args:
        manifests: JSON files of the evaluations.
        methods: whose runs are read; None for all.

    Returns:
        By run, then key of the checkpoint, such as {run: {"ft": 0.99}}.
    """
    fits = {}
    for path in manifests:
        facts = read_json(path)
        for run in _runs_of(path, facts, methods):
            fits[run] = facts["fit"]
    return fits


def _runs_of(
    manifest: Path, facts: Mapping[str, Any], methods: Collection[str] | None
) -> Iterator[Run]:
    """Runs of these methods (None for all) that an evaluation has scored."""
    for network in facts["networks"]:
        if methods is None or network["method"] in methods:
            yield replace(Layout.run_of(manifest), method=network["method"])


def devices_of_runs(
    manifests: Iterable[Path], methods: Collection[str] | None = None
) -> dict[Run, str]:
    """Kinds of devices that trained and evaluated each run, each kind once.

    An example is {run: "cuda (compute capability 8.0) in bf16 + cpu in fp32"}: trained on a GPU,
    evaluated on a CPU. Arguments are those of `read_fits`.
    """
    kinds_of_runs: dict[Run, list[str]] = {}
    for path in manifests:
        facts = read_json(path)
        for run in _runs_of(path, facts, methods):
            kinds = kinds_of_runs.setdefault(run, [])
            for kinds_of_training in facts["trained_on"].values():
                kinds.extend(kinds_of_training)
            kinds.append(kind_of_device(facts))
    return {run: join_kinds(kinds) for run, kinds in kinds_of_runs.items()}


def _with_devices(table: pd.DataFrame, devices: Mapping[Run, str]) -> pd.DataFrame:
    """A table of runs with the column device: the kinds of devices behind each row."""
    runs = table[RUN_COLUMNS].itertuples(index=False)
    return table.assign(device=[devices[Run.from_wildcards(run)] for run in runs])


def grid_tables(
    files: RowFiles,
    manifests: Collection[Path],
    datasets: Collection[DatasetFiles],
    settings: GridTableSettings,
    counts_file: Path,
) -> dict[str, pd.DataFrame]:
    """Tables of accuracy, fit, RI and mRI from the evaluation rows of a grid.

    Args:
        datasets: datasets of the rows; training images of targets show which classes are seen.
        counts_file: .npz file of right answers that is written.

    Returns:
        accuracy, fit, ri, mri, ood, curves, classes and worst_classes. Tables of single runs
        (accuracy, fit, ri and curves) have a column device, see `devices_of_runs`. With filtered
        datasets, mri has without_filtered, mRI without them, and its interval. With datasets in
        distribution, in_distribution is like mri, with change, before and after. With leaking
        groups, leak_free compares RI with and without images of shared sources. With targets in
        distribution, ri has their runs, too, and id_targets_fit their fit; all other tables are of
        other targets.
    """
    ood_datasets = settings.ri.ood_datasets
    source_groups = settings.ri.source_groups
    confidence = settings.ri.confidence
    fits = read_fits(manifests, files.methods)
    rows = Progress(files.rows, desc="reading rows", unit="file")
    groups_of_sources = source_groups
    if groups_of_sources is None:
        groups_of_sources = settings.leaking_groups
    all_counts = count(
        read_rows_of(replace(files, rows=rows)), read_objects(files.indexes, groups_of_sources)
    )
    id_targets = settings.id_targets
    counts = _of_targets(all_counts, id_targets, among=False)
    counts_of_id_targets = _of_targets(all_counts, id_targets, among=True)
    all_fits = fits
    fits = {run: fit for run, fit in all_fits.items() if run.target not in id_targets}
    counts_to_write = counts
    if source_groups is None:  # jobs that read the file count all images
        counts_to_write = replace(counts, shared={})
    write_counts(counts_to_write, counts_file)
    weights = object_weights(counts.objects, settings.ri.replicates, settings.ri.seed)
    ood = ood_accuracies(counts, weights, ood_datasets, source_groups)

    ri = ri_table(ood, confidence)
    if source_groups is not None:
        _log_remaining_images(ri)
    ri = ri.assign(target_role=OOD)[RI_COLUMNS]
    seen = coverage(counts, datasets, settings.view, checkpoints=fits)
    accuracy = accuracy_table(counts)
    fits_of_runs = fit_table(fits, accuracy, settings.fit)
    classes = class_table(counts, label_spaces(datasets), source_groups)
    mri, mean_accuracies = mri_tables(ood, confidence)
    if settings.filtered:
        not_filtered = [name for name in ood_datasets if name not in settings.filtered]
        ood_without = ood_accuracies(counts, weights, not_filtered, source_groups)
        mri = _with_mri_of_others(mri, ood_without, confidence)
    in_distribution = settings.in_distribution
    with_seen = seen_table(ri, counts, seen, weights, confidence, ood_datasets, source_groups)
    tables = {
        "accuracy": with_roles(accuracy, counts, ood_datasets, in_distribution, source_groups),
        "fit": fits_of_runs,
        "ri": with_seen,
        "mri": mri,
        "ood": mean_accuracies,
        "curves": curve_table(ood, confidence),
        "worst_classes": worst_classes(classes, ood_datasets),
        # Marked here, as by far the largest table: writing would compare runs as texts.
        "classes": marked(classes, fits_of_runs),
    }
    if settings.leaking_groups is not None:
        leak_free = leak_free_accuracies(
            counts.without_curves(), weights, ood_datasets, settings.leaking_groups
        )
        tables["leak_free"] = leak_free_table(ood, leak_free, settings.sharing_targets, confidence)
    if in_distribution:
        tables["in_distribution"] = _in_distribution_table(
            counts, weights, in_distribution, confidence
        )
    if id_targets:
        # No dataset is left out: the target is none of them.
        of_id_targets = ri_table(
            ood_accuracies(counts_of_id_targets, weights, ood_datasets), confidence
        )
        of_id_targets["target_role"] = IN_DISTRIBUTION
        if with_seen.empty:  # pandas would take its types
            tables["ri"] = of_id_targets.reindex(columns=with_seen.columns)
        else:
            tables["ri"] = pd.concat([with_seen, of_id_targets], ignore_index=True)
        fits_of_id_targets = {run: fit for run, fit in all_fits.items() if run.target in id_targets}
        tables["id_targets_fit"] = fit_table(fits_of_id_targets, accuracy, settings.fit)
    devices = devices_of_runs(manifests, files.methods)
    for name in TABLES_OF_RUNS & tables.keys():
        tables[name] = _with_devices(tables[name], devices)
    return tables


def _of_targets(counts: Counts, targets: Collection[str], among: bool) -> Counts:
    """Pretrained states, and runs on these targets (`among`) or on all others."""
    indices = []
    for i, state in enumerate(counts.states):
        if state.is_pretrained or (state.run.target in targets) == among:
            indices.append(i)
    return counts.select_states(indices)


def _in_distribution_table(
    counts: Counts, weights: np.ndarray, datasets: Collection[str], confidence: float
) -> pd.DataFrame:
    """Columns of mri, with change, before and after, over the datasets in distribution."""
    accuracies = ood_accuracies(counts, weights, datasets)
    means, _ = mri_tables(accuracies, confidence)
    new_names = {"mri": "change", "ood_before": "before", "ood_after": "after"}
    return means.rename(columns=new_names)


def _log_remaining_images(ri: pd.DataFrame) -> None:
    """Logs how many images count in leak-free RI, for each target."""
    for target, images in ri.groupby("target")["n"].first().items():
        log.info("leak-free: for the target %s, %d images of other datasets remain", target, images)


def json_by_method(mri: pd.DataFrame) -> dict[str, dict[str, float]]:
    """mRI for `dvc metrics show`, such as {"lite0": {"ft": -1.234567, "ft, 0.5": -0.9}}.

    It is rounded as in the CSV. A training subset other than `all` is appended to the method.

    Args:
        mri: columns model, method, size, mri.
    """
    mri_of_models: dict[str, dict[str, float]] = {}
    for line in mri.to_dict("records"):
        name = line["method"]
        if line["size"] != ALL:
            name = f"{line['method']}, {line['size']}"
        mri_of_methods = mri_of_models.setdefault(line["model"], {})
        mri_of_methods[name] = round(line["mri"], 6)
    return mri_of_models
