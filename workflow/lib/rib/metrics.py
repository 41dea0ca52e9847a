"""From rows per image to accuracies, RI and mRI with intervals. Pure functions of tables; no torch.

Definitions (arXiv 2410.21582, section 3), all in percentage points, A_pre(j) the pretrained model's accuracy on
dataset j and A_i(j) the accuracy after fine-tuning on target i:

    RI_i       = mean over datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

With several seeds, each is the mean over seeds too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rib.io import Progress, UserError, read_json, write_json, write_text
from rib.runs import PRETRAINED

RUN = ["model", "method", "target", "seed"]
COLUMNS = [*RUN, "dataset", "object_id", "label", "prediction"]


@dataclass(frozen=True)
class Counts:
    """Correct answers per object, for every run and dataset of a grid.

    Attributes:
        runs: (model, method, target, seed) of each run, sorted.
        datasets: names, in the rows' order.
        correct: (runs, datasets, objects) images answered right.
        images: (datasets, objects) images; an object that a dataset doesn't show has 0.
    """

    runs: list[tuple[str, str, str, int]]
    datasets: list[str]
    correct: np.ndarray
    images: np.ndarray

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """Accuracies in percent under weights of the objects.

        Args:
            weights: (replicates, objects), how often each object counts.

        Returns:
            (replicates, runs, datasets).
        """
        right = np.einsum("bo,rdo->brd", weights, self.correct, optimize=True)
        shown = weights @ self.images.T  # (replicates, datasets)
        return 100 * right / shown[:, None, :]


def count(parts: Iterable[pd.DataFrame]) -> Counts:
    """Correct answers per run, dataset and object.

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
    runs, correct, shown = [], [], []
    for run, part in tally.groupby(RUN, sort=True):
        place = part["dataset"].map(datasets.index).to_numpy(), objects.get_indexer(part["object_id"])
        runs.append(run)
        for values, column in ((correct, "correct"), (shown, "images")):
            table = np.zeros(shape)
            np.add.at(table, place, part[column].to_numpy())
            values.append(table)
    if any((images != shown[0]).any() for images in shown):
        raise ValueError("the runs were not scored on the same images")
    return Counts(runs, datasets, np.stack(correct), shown[0])


def _tally(rows: pd.DataFrame) -> pd.DataFrame:
    """Images and correct answers per run, dataset and object."""
    right = rows.assign(correct=rows["label"] == rows["prediction"]).astype({"dataset": str, "object_id": str})
    groups = right.groupby([*RUN, "dataset", "object_id"], sort=False, observed=True)["correct"]
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
    """One line per run and dataset: model, method, target, seed, dataset, n, correct, accuracy (percent)."""
    correct, images = counts.correct.sum(axis=2), counts.images.sum(axis=1)
    lines = [
        (*run, dataset, int(images[d]), int(correct[r, d]), 100 * correct[r, d] / images[d])
        for r, run in enumerate(counts.runs)
        for d, dataset in enumerate(counts.datasets)
    ]
    return pd.DataFrame(lines, columns=[*RUN, "dataset", "n", "correct", "accuracy"])


def ood_accuracies(counts: Counts, accuracy: np.ndarray) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """Mean accuracy off the target before and after fine-tuning, for every fine-tuned run.

    Args:
        counts: names of runs and datasets.
        accuracy: (replicates, runs, datasets), percent.

    Returns:
        For each run (before, after), each (replicates,): mean over datasets j != target of A_pre(j) and A_i(j).
    """
    place = {run: position for position, run in enumerate(counts.runs)}
    found = {}
    for run in counts.runs:
        model, method, target, _ = run
        if method != PRETRAINED:
            others = [d for d, dataset in enumerate(counts.datasets) if dataset != target]
            before = accuracy[:, place[model, PRETRAINED, "none", 0]][:, others].mean(axis=1)
            found[run] = before, accuracy[:, place[run]][:, others].mean(axis=1)
    return found


def interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates (replicates,)."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def ri_table(ood: Mapping[tuple, tuple[np.ndarray, np.ndarray]], confidence: float) -> pd.DataFrame:
    """One line per fine-tuned run: model, method, target, seed, ri, ci_low, ci_high (percentage points)."""
    lines = [
        (*run, (after - before)[0], *interval((after - before)[1:], confidence)) for run, (before, after) in ood.items()
    ]
    return pd.DataFrame(lines, columns=[*RUN, "ri", "ci_low", "ci_high"])


def mri_tables(
    ood: Mapping[tuple, tuple[np.ndarray, np.ndarray]], confidence: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """mRI per model and method, and the two mean accuracies it is the difference of.

    Returns:
        mri: model, method, mri, ci_low, ci_high, ood_before, ood_after;
        ood: model, method, when (before or after), accuracy, ci_low, ci_high. All in percent.
    """
    groups: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for (model, method, _, _), pair in ood.items():
        groups.setdefault((model, method), []).append(pair)
    mri, means = [], []
    for key, pairs in groups.items():
        before, after = (np.mean([pair[side] for pair in pairs], axis=0) for side in (0, 1))
        mri.append((*key, (after - before)[0], *interval((after - before)[1:], confidence), before[0], after[0]))
        for when, values in (("before", before), ("after", after)):
            means.append((*key, when, values[0], *interval(values[1:], confidence)))
    return (
        pd.DataFrame(mri, columns=["model", "method", "mri", "ci_low", "ci_high", "ood_before", "ood_after"]),
        pd.DataFrame(means, columns=["model", "method", "when", "accuracy", "ci_low", "ci_high"]),
    )


def write_tables(
    *,
    rows: Iterable[Path],
    manifests: Iterable[Path],
    replicates: int,
    confidence: float,
    seed: int,
    outputs: Mapping[str, Path],
) -> None:
    """Write accuracy, ri, mri, mri_json and ood from the evaluation rows of a grid.

    Args:
        rows: Parquet files.
        manifests: of the same evaluations.
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
    ood = ood_accuracies(counts, counts.accuracy(weights))
    mri, means = mri_tables(ood, confidence)
    tables = {"accuracy": accuracy_table(counts), "ri": ri_table(ood, confidence), "mri": mri, "ood": means}
    for name, table in tables.items():
        write_text(outputs[name], table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_json(outputs["mri_json"], json_by_method(mri))


def json_by_method(mri: pd.DataFrame) -> dict:
    """mRI as {model: {method: mri}}, a value per column of `dvc metrics show`; rounded as the CSV is."""
    nested: dict[str, dict] = {}
    for line in mri.to_dict("records"):
        nested.setdefault(line["model"], {})[line["method"]] = round(line["mri"], 6)
    return nested
