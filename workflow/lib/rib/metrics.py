"""From rows per image to accuracies, RI and mRI with intervals. Pure functions of tables; no torch.

Definitions (arXiv 2410.21582, section 3), all in percentage points, A_pre(j) the pretrained model's accuracy on
dataset j and A_i(j) the accuracy after fine-tuning on target i:

    RI_i       = mean over datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

Datasets j are those out of distribution, evaluation-only ones among them.

With several seeds, each is the mean over seeds too; sizes of the training part are kept apart. A run that is a curve
has a state per alpha; its numbers are in a table of their own.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rib.io import Progress, UserError, read_json, write_json, write_text
from rib.runs import ALL, NO_TARGET, PRETRAINED

RUN = ["model", "method", "target", "size", "seed"]
STATE = [*RUN, "alpha"]
COLUMNS = [*STATE, "dataset", "object_id", "label", "prediction"]

# A model state that was scored: model, method, target, size, seed, alpha (None unless of a curve).
State = tuple[str, str, str, str, int, float | None]


@dataclass(frozen=True)
class Counts:
    """Correct answers per object, for every state and dataset of a grid.

    Attributes:
        states: each, sorted.
        datasets: names, in the rows' order.
        correct: (states, datasets, objects) images answered right.
        images: (datasets, objects) images; an object that a dataset doesn't show has 0.
    """

    states: list[State]
    datasets: list[str]
    correct: np.ndarray
    images: np.ndarray

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """Accuracies in percent under weights of the objects.

        Args:
            weights: (replicates, objects), how often each object counts.

        Returns:
            (replicates, states, datasets).
        """
        right = np.einsum("bo,rdo->brd", weights, self.correct, optimize=True)
        shown = weights @ self.images.T  # (replicates, datasets)
        return 100 * right / shown[:, None, :]


def count(parts: Iterable[pd.DataFrame]) -> Counts:
    """Correct answers per state, dataset and object.

    Args:
        parts: evaluation rows of a grid with at least the columns of `COLUMNS`, in parts of any size; each is
            reduced to its objects before the next is read.

    Raises:
        ValueError: two runs were scored on different images.
    """
    tally = pd.concat([_tally(part) for part in parts], ignore_index=True)
    datasets = list(dict.fromkeys(tally["dataset"]))
    objects = pd.Index(sorted(set(tally["object_id"])))
    shape = len(datasets), len(objects)
    states, correct, shown = [], [], []
    for state, part in tally.groupby(STATE, sort=True, dropna=False):
        place = part["dataset"].map(datasets.index).to_numpy(), objects.get_indexer(part["object_id"])
        states.append((*state[:-1], None if np.isnan(state[-1]) else state[-1]))
        for values, column in ((correct, "correct"), (shown, "images")):
            table = np.zeros(shape)
            np.add.at(table, place, part[column].to_numpy())
            values.append(table)
    if any((images != shown[0]).any() for images in shown):
        raise ValueError("the runs were not scored on the same images")
    return Counts(states, datasets, np.stack(correct), shown[0])


def _tally(rows: pd.DataFrame) -> pd.DataFrame:
    """Images and correct answers per state, dataset and object."""
    right = rows.assign(correct=rows["label"] == rows["prediction"]).astype({"dataset": str, "object_id": str})
    groups = right.groupby([*STATE, "dataset", "object_id"], sort=False, observed=True, dropna=False)["correct"]
    return groups.agg(images="size", correct="sum").reset_index()


def object_weights(objects: int, replicates: int, seed: int) -> np.ndarray:
    """Bootstrap weights: row 0 counts every object once, each further row draws as many with replacement.

    One draw serves all runs and datasets, so that differences between them keep their pairing.

    Returns:
        (replicates + 1, objects) float64.
    """
    draws = np.random.default_rng(seed).multinomial(objects, np.full(objects, 1 / objects), size=replicates)
    return np.concatenate([np.ones((1, objects)), draws]).astype(float)


def accuracy_table(counts: Counts) -> pd.DataFrame:
    """One line per run and dataset: model, method, target, size, seed, dataset, n, correct, accuracy (percent)."""
    correct, images = counts.correct.sum(axis=2), counts.images.sum(axis=1)
    lines = [
        (*state[:-1], dataset, int(images[d]), int(correct[s, d]), 100 * correct[s, d] / images[d])
        for s, state in enumerate(counts.states)
        if state[-1] is None
        for d, dataset in enumerate(counts.datasets)
    ]
    return pd.DataFrame(lines, columns=[*RUN, "dataset", "n", "correct", "accuracy"])


def ood_accuracies(
    counts: Counts, accuracy: np.ndarray, among: Collection[str] | None = None
) -> dict[State, tuple[np.ndarray, np.ndarray]]:
    """Mean accuracy off the target before and after fine-tuning, for every fine-tuned state.

    Args:
        counts: names of states and datasets.
        accuracy: (replicates, states, datasets), percent.
        among: datasets that are out of distribution, all when None.

    Returns:
        For each state (before, after), each (replicates,): mean over datasets j != target of A_pre(j) and A_i(j).
    """
    place = {state[:-1]: position for position, state in enumerate(counts.states) if state[-1] is None}
    found = {}
    for position, state in enumerate(counts.states):
        model, method, target, *_ = state
        if method != PRETRAINED:
            others = [
                d for d, name in enumerate(counts.datasets) if name != target and (among is None or name in among)
            ]
            before = accuracy[:, place[model, PRETRAINED, NO_TARGET, ALL, 0]][:, others].mean(axis=1)
            found[state] = before, accuracy[:, position][:, others].mean(axis=1)
    return found


def interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates (replicates,)."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def ri_table(ood: Mapping[State, tuple[np.ndarray, np.ndarray]], confidence: float) -> pd.DataFrame:
    """One line per state: model, method, target, size, seed, alpha, ri, ci_low, ci_high (percentage points)."""
    lines = [
        (*state, (after - before)[0], *interval((after - before)[1:], confidence))
        for state, (before, after) in ood.items()
    ]
    return pd.DataFrame(lines, columns=[*STATE, "ri", "ci_low", "ci_high"]).astype({"alpha": float})


def curve_table(ri: pd.DataFrame, counts: Counts, ood: Mapping[State, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """The states of curves: what `ri_table` says of each, and accuracies on the target (downstream) and off it (ood).

    Accuracies are in percent; downstream is NaN where the target is not evaluated.
    """
    shares = 100 * counts.correct.sum(axis=2) / counts.images.sum(axis=1)
    after = [
        (
            shares[counts.states.index(state), counts.datasets.index(state[2])]
            if state[2] in counts.datasets
            else np.nan,
            pair[1][0],
        )
        for state, pair in ood.items()
    ]
    named = pd.DataFrame(after, columns=["downstream", "ood"], index=ri.index)
    return pd.concat([ri[STATE], named, ri[["ri", "ci_low", "ci_high"]]], axis=1).dropna(subset=["alpha"])


def mri_tables(
    ood: Mapping[State, tuple[np.ndarray, np.ndarray]], confidence: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """mRI per model, method and size, and the two mean accuracies it is the difference of; curves are left out.

    Returns:
        mri: model, method, size, mri, ci_low, ci_high, ood_before, ood_after;
        ood: model, method, size, when (before or after), accuracy, ci_low, ci_high. All in percent.
    """
    groups: dict[tuple[str, str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for (model, method, _, size, _, alpha), pair in ood.items():
        if alpha is None:
            groups.setdefault((model, method, size), []).append(pair)
    mri, means = [], []
    for key, pairs in groups.items():
        before, after = (np.mean([pair[side] for pair in pairs], axis=0) for side in (0, 1))
        mri.append((*key, (after - before)[0], *interval((after - before)[1:], confidence), before[0], after[0]))
        for when, values in (("before", before), ("after", after)):
            means.append((*key, when, values[0], *interval(values[1:], confidence)))
    names = ["model", "method", "size"]
    return (
        pd.DataFrame(mri, columns=[*names, "mri", "ci_low", "ci_high", "ood_before", "ood_after"]),
        pd.DataFrame(means, columns=[*names, "when", "accuracy", "ci_low", "ci_high"]),
    )


def write_tables(
    *,
    rows: Iterable[Path],
    manifests: Iterable[Path],
    among: Collection[str],
    replicates: int,
    confidence: float,
    seed: int,
    outputs: Mapping[str, Path],
) -> None:
    """Write accuracy, ri, mri, mri_json, ood and curves from the evaluation rows of a grid.

    Args:
        rows: Parquet files.
        manifests: of the same evaluations.
        among: datasets that are out of distribution and count in RI.
        replicates: bootstrap replicates.
        confidence: coverage of the intervals, between 0 and 1.
        seed: of the resampling.
        outputs: path of each table.

    Raises:
        UserError: the runs were not all evaluated on one kind of device, whose arithmetic differs.
    """
    devices = {read_json(path)["device"] for path in manifests}
    if len(devices) > 1:
        raise UserError(
            f"the grid mixes evaluations on {' and '.join(sorted(devices))}, whose precision differs; set compute.device in "
            "config.yaml to one of them, so that the others are evaluated again."
        )
    files = Progress(rows, desc="reading rows", unit="file")
    counts = count(pd.read_parquet(path, columns=COLUMNS) for path in files)
    weights = object_weights(counts.images.shape[1], replicates, seed)
    ood = ood_accuracies(counts, counts.accuracy(weights), among)
    mri, means = mri_tables(ood, confidence)
    ri = ri_table(ood, confidence)
    tables = {
        "accuracy": accuracy_table(counts),
        "ri": ri[ri["alpha"].isna()].drop(columns="alpha"),
        "mri": mri,
        "ood": means,
        "curves": curve_table(ri, counts, ood),
    }
    for name, table in tables.items():
        write_text(outputs[name], table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_json(outputs["mri_json"], json_by_method(mri))


def json_by_method(mri: pd.DataFrame) -> dict:
    """mRI as {model: {method: mri}}, a value per column of `dvc metrics show`; rounded as the CSV is.

    A size of the training part other than all is named with the method: `ft, 0.5`.
    """
    nested: dict[str, dict] = {}
    for line in mri.to_dict("records"):
        method = line["method"] if line["size"] == ALL else f"{line['method']}, {line['size']}"
        nested.setdefault(line["model"], {})[method] = round(line["mri"], 6)
    return nested
