"""Per-image effects of fine-tuning: agreement, flips, calibration and scores. No torch.

On one dataset, for the pretrained model's prediction p and the fine-tuned model's
prediction f:

    agreement       fraction of images with f = p
    right to wrong  fraction of images with p right and f wrong
    wrong to right  fraction of images with p wrong and f right

The change of accuracy is wrong to right minus right to wrong. An unchanged accuracy can hide many
flips.

The expected calibration error (ECE) bins images by confidence into 15 bins of equal width and
averages |mean confidence - accuracy| over bins, weighted by their number of images (Guo et al.
2017, arXiv 1706.04599, equation 3). Its floor is its mean for a perfectly calibrated model, right
with the probability of its confidence; it is not 0, and before and after fine-tuning, with the same
images but other confidences, it is not the same.

Rows are read one run at a time to bound memory.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom

from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import (
    ALL_INDICES,
    SOURCE,
    Indices,
    SharedObjects,
    different_images,
    read_indexes,
    read_objects,
    shared_objects,
)
from rib.analysis.ri import SourceGroups, on_other_datasets
from rib.analysis.scores import REAL, SCORES, compared_scores, real_accuracies, real_answers
from rib.base.files import read_json
from rib.base.progress import Progress
from rib.config.label_space import LabelSpace, read_real_labels
from rib.config.run import PRETRAINED, RUN_COLUMNS, Run, by_run

BINS = 15  # of the calibration error
CALIBRATION_BEFORE = ("ece_before", "ece_floor_before")
CALIBRATION_AFTER = ("ece_after", "ece_floor_after")
CALIBRATION = (*CALIBRATION_BEFORE, *CALIBRATION_AFTER)
SHARES = ("agreement", "right_to_wrong", "wrong_to_right")
LINE_COLUMNS = (*CALIBRATION_AFTER, *SHARES, *SCORES, *REAL)  # of what two runs are compared by
COLUMNS = ("row", "prediction", "rank", "confidence", "log_prob", "brier")
GROUP = ["model", "method", "size"]
REPLICATES_OF_BLOCK = 200  # bootstrap replicates at once, which bounds memory

RowsByDataset = Mapping[str, pd.DataFrame]  # a run's evaluation rows


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Expected calibration error and its floor, in percent.

    For the floor, the number of right predictions in a bin is taken as binomial with the bin's mean
    confidence, which makes it at most 4 % of itself too large.

    Args:
        confidence: (n,) of the predictions, 0 to 1.
        right: (n,) bool, whether each is correct.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3: |B|/n * |acc(B) - conf(B)| equals the
    absolute sum of right - confidence over the bin's images, divided by n. De Moivre's mean
    absolute deviation of a binomial distribution, 2 k (1 - p) P(k) with k = floor(n p) + 1.
    """
    confidence = confidence.astype(np.float64).clip(0, 1)  # rounding may have put it above 1
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    # Of each bin: number of images, sum of confidences, and sum of right - confidence.
    n = np.bincount(bins, minlength=BINS)
    expected = np.bincount(bins, confidence, BINS)
    gaps = np.bincount(bins, right - confidence, BINS)
    p = expected / np.maximum(n, 1)
    k = np.floor(expected) + 1
    gaps_by_chance = 2 * k * (1 - p) * binom.pmf(k, n, p)
    images = len(confidence)
    error = 100 * float(np.abs(gaps).sum()) / images
    floor = 100 * float(gaps_by_chance.sum()) / images
    return error, floor


def compared(
    before: pd.DataFrame, after: pd.DataFrame, dataset: str, runs: tuple[Run, Run]
) -> dict[str, np.ndarray]:
    """Which images each of `SHARES` is of, (n,) bool.

    Args:
        before, after: rows of two runs on one dataset (row, prediction, rank).
        dataset, runs: their names, for the error.

    Raises:
        UserError: the two runs were not scored on the same images.
    """
    if not np.array_equal(before["row"], after["row"]):
        raise different_images(dataset, *runs)
    right_before = is_right(before)
    right_after = is_right(after)
    return {
        "agreement": before["prediction"].to_numpy() == after["prediction"].to_numpy(),
        "right_to_wrong": right_before & ~right_after,
        "wrong_to_right": ~right_before & right_after,
    }


def is_right(rows: pd.DataFrame) -> np.ndarray:
    """Which predictions are correct: (n,) bool."""
    return rows["rank"].to_numpy() == 0


def read_rows(paths: Iterable[Path], columns: Sequence[str] = COLUMNS) -> dict[str, pd.DataFrame]:
    """A run's rows by dataset, from all its evaluation groups."""
    rows_of_dataset = {}
    for path in paths:
        rows = pd.read_parquet(path, columns=["dataset", *columns])
        for dataset, group in rows.groupby("dataset", observed=True, sort=False):
            rows_of_dataset[dataset] = group
    return rows_of_dataset


class ResampledObjects:
    """Objects of a grid's datasets and their bootstrap draws, the same ones as for RI.

    Args:
        objects: by dataset, (n,) index of each image's object, in row order, and (objects,) sorted
            ids, of which some may be equal.
        replicates, seed: of the bootstrap, see `object_weights`.
        shared: for leak-free means, by target and dataset, see `Counts.shared`.
    """

    def __init__(
        self,
        objects: Mapping[str, tuple[np.ndarray, pd.Index]],
        replicates: int,
        seed: int,
        shared: SharedObjects,
    ):
        self.shared = shared
        unique_ids = pd.Index(np.unique(np.concatenate([ids for _, ids in objects.values()])))
        self.object_of_image = {
            dataset: object_of_image for dataset, (object_of_image, _) in objects.items()
        }
        self.object_indices = {
            dataset: unique_ids.get_indexer(ids) for dataset, (_, ids) in objects.items()
        }
        self.images = {
            dataset: np.bincount(object_of_image).astype(np.uint16)
            for dataset, object_of_image in self.object_of_image.items()
        }
        self.weights = object_weights(len(unique_ids), replicates, seed)

    def sums(self, dataset: str, values: Iterable[np.ndarray]) -> np.ndarray:
        """Sums over each object's images of k values, each (n,): (k, objects of the dataset)."""
        object_of_image = self.object_of_image[dataset]
        objects = len(self.images[dataset])
        return np.stack(
            [np.bincount(object_of_image, weights=value, minlength=objects) for value in values]
        )

    def resampled_means(self, dataset: str, objects: Indices, sums: np.ndarray) -> np.ndarray:
        """Means over the images of a dataset's objects that count: (replicates + 1, k).

        Args:
            objects: those that count, see `on_other_datasets`.
            sums: (k, objects of the dataset), see `sums`.
        """
        object_indices = self.object_indices[dataset][objects]
        columns = np.vstack([sums[:, objects], self.images[dataset][objects]]).T
        totals_of_blocks = []
        for start in range(0, len(self.weights), REPLICATES_OF_BLOCK):
            weights = self.weights[start : start + REPLICATES_OF_BLOCK, object_indices]
            totals_of_blocks.append(weights.astype(np.float64) @ columns)
        totals = np.concatenate(totals_of_blocks)
        images = totals[:, -1:]
        with np.errstate(invalid="ignore"):  # a replicate may have no object of the dataset
            return totals[:, :-1] / images


@dataclass
class SummedRuns:
    """Sums over runs of one model, method and size, for means over their other datasets."""

    resampling: ResampledObjects
    ood_datasets: Collection[str]
    source_groups: SourceGroups
    runs: int = 0
    # By dataset, and by target if not all of the dataset's objects count: those that count, and the
    # sum over runs of the values of objects, each divided by the run's number of datasets.
    counted_objects: dict[tuple[str, str | None], Indices] = field(default_factory=dict)
    summed: dict[tuple[str, str | None], np.ndarray] = field(default_factory=dict)

    def add(self, target: str, sums: Mapping[str, np.ndarray]) -> None:
        """Add a run with a target; `sums`: see `ResampledObjects.sums`, by dataset."""
        self.runs += 1
        objects_of_dataset = on_other_datasets(
            self.resampling.object_indices,
            target,
            self.ood_datasets,
            self.source_groups,
            self.resampling.shared,
        )
        for dataset, objects in objects_of_dataset.items():
            key = (dataset, None if objects is ALL_INDICES else target)
            self.counted_objects.setdefault(key, objects)
            share = sums[dataset] / len(objects_of_dataset)
            self.summed[key] = self.summed.get(key, 0.0) + share

    def means(self) -> np.ndarray:
        """Means over images, datasets and runs: (replicates + 1, k)."""
        total = 0
        for (dataset, target), summed in self.summed.items():
            objects = self.counted_objects[dataset, target]
            total = total + self.resampling.resampled_means(dataset, objects, summed)
        return total / self.runs


def _objects_of(index: pd.DataFrame) -> tuple[np.ndarray, pd.Index]:
    """Number of each image's object (n,), and the objects' sorted ids.

    With the column `SOURCE`, an object occurs once for each of its source images.
    """
    columns = ["object_id"]
    if SOURCE in index:
        columns.append(SOURCE)
    groups = index.groupby(columns, sort=True)
    return groups.ngroup().to_numpy(), groups.size().index.get_level_values("object_id")


def sample_tables(
    *,
    rows: Iterable[Path],
    indexes: Collection[Path],
    classes: Iterable[Path],
    real_labels: Collection[str],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    replicates: int,
    confidence: float,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """The tables samples, scores, flips and mean_scores from the evaluation rows of a grid.

    Args:
        rows: Parquet files of all runs except curves; folder names identify the run (see `run_of`).
        indexes, classes: index and label space of each dataset; folder names identify it.
        real_labels: datasets that are also scored with ReaL labels.

    Returns:
        `samples` has one row per fine-tuned run and dataset: model, method, target, size, seed,
        dataset, n, agreement, right_to_wrong, wrong_to_right, ece_before, ece_after and their
        floors (percent). `flips` has one row per model, method and size: means of the three shares
        over targets, seeds and the datasets other than the target, each with its confidence
        interval over objects (percent). `scores` has the rows of `samples`: `SCORES`, then `REAL`,
        empty for datasets without ReaL labels. `mean_scores` has the rows of `flips`: the same
        means of `SCORES`, with intervals. Top-5 is empty if one of the datasets has fewer than six
        classes.

    Raises:
        UserError: the ReaL labels don't have an image of a dataset in `real_labels`, or two runs
            were scored on different images.
    """
    files = by_run(rows)
    pretrained = {run.model: run for run in files if run.method == PRETRAINED}
    tuned = [run for run in files if run.method != PRETRAINED]
    tuned.sort(key=lambda run: run.values(GROUP))
    first_pretrained = pretrained[min(pretrained)]
    first_rows = read_rows(files[first_pretrained].values())
    images = _scored_images(indexes, source_groups, first_rows)
    objects = {dataset: _objects_of(index) for dataset, index in images.items()}
    targets = {run.target for run in tuned}
    shared = _shared_objects(images, objects, targets)
    resampling = ResampledObjects(objects, replicates, seed, shared)
    spaces = {path.parts[-3]: LabelSpace.from_json(read_json(path)) for path in classes}
    answers = _real_answers(indexes, real_labels, first_rows, spaces)

    comparer = _Comparer(spaces, answers, resampling)

    lines_of_runs, lines_of_groups = [], []
    progress = Progress(tuned, desc="comparing runs", unit="run")
    for model, runs_of_model in itertools.groupby(progress, key=lambda run: run.model):
        before = read_rows(files[pretrained[model]].values())
        for dataset, rows_before in before.items():
            # All models must share the images of the first one.
            pretrained_pair = (first_pretrained, pretrained[model])
            compared(first_rows[dataset], rows_before, dataset, pretrained_pair)
        calibration_before = {dataset: _calibration_of(rows) for dataset, rows in before.items()}
        for group, runs in itertools.groupby(runs_of_model, key=lambda run: run.values(GROUP)):
            summed = SummedRuns(resampling, ood_datasets, source_groups)
            for run in runs:
                after = read_rows(files[run].values())
                sums = {}
                for dataset, rows_before in before.items():
                    line, sums[dataset] = comparer.compare(
                        rows_before, after[dataset], dataset, (pretrained[model], run)
                    )
                    run_and_dataset = (*run.values(RUN_COLUMNS), dataset, len(rows_before))
                    lines_of_runs.append((*run_and_dataset, *calibration_before[dataset], *line))
                summed.add(run.target, sums)
            estimates = [estimate(values, confidence) for values in summed.means().T]
            lines_of_groups.append((*group, *itertools.chain.from_iterable(estimates)))
    return _tables(lines_of_runs, lines_of_groups)


@dataclass(frozen=True)
class _Comparer:
    """What the rows of two runs are compared with."""

    spaces: Mapping[str, LabelSpace]  # by dataset
    answers: Mapping[str, np.ndarray]  # by dataset with ReaL labels, see `real_answers`
    resampling: ResampledObjects

    def compare(
        self, before: pd.DataFrame, after: pd.DataFrame, dataset: str, runs: tuple[Run, Run]
    ) -> tuple[tuple, np.ndarray]:
        """Compare the rows of two runs on a dataset.

        Returns:
            `LINE_COLUMNS` of the table of runs, and sums over each object's images of `SHARES` and
            `SCORES`, (k, objects).

        Raises:
            UserError: the two runs were not scored on the same images.
        """
        flags = compared(before, after, dataset, runs)
        shares = [100.0 * flags[share] for share in SHARES]
        scores = compared_scores(before, after, len(self.spaces[dataset].keys))
        line = (
            *_calibration_of(after),
            *map(np.mean, shares),
            *scores.mean(axis=1),
            *real_accuracies(before, after, self.answers.get(dataset)),
        )
        return line, self.resampling.sums(dataset, [*shares, *scores])


def _scored_images(
    indexes: Collection[Path], source_groups: SourceGroups, rows: RowsByDataset
) -> dict[str, pd.DataFrame]:
    """The indexes of the images that rows are of, in the rows' order, by dataset."""
    index_of_dataset = read_objects(indexes, source_groups, ["object_id"])
    return {
        dataset: index_of_dataset[dataset].iloc[rows_of_dataset["row"]]
        for dataset, rows_of_dataset in rows.items()
    }


def _shared_objects(
    images: Mapping[str, pd.DataFrame],
    objects: Mapping[str, tuple[np.ndarray, pd.Index]],
    targets: Iterable[str],
) -> dict[tuple[str, str], np.ndarray]:
    """`shared_objects` of indexes that have the scored images alone."""
    scored = {}
    for dataset, index in images.items():
        object_of_image, _ = objects[dataset]
        scored[dataset] = (index, np.arange(len(index)), object_of_image)
    return shared_objects(scored, targets)


def _real_answers(
    indexes: Collection[Path],
    real_labels: Collection[str],
    rows: RowsByDataset,
    spaces: Mapping[str, LabelSpace],
) -> dict[str, np.ndarray]:
    """`real_answers` of the images that rows are of, by dataset with ReaL labels."""
    paths = [path for path in indexes if path.parts[-3] in real_labels]
    answers = {}
    for dataset, index in read_indexes(paths, ["image_id"]).items():
        image_ids = index["image_id"].iloc[rows[dataset]["row"]]
        answers[dataset] = real_answers(dataset, image_ids, spaces[dataset], read_real_labels())
    return answers


def _calibration_of(rows: pd.DataFrame) -> tuple[float, float]:
    """`calibration` of the predictions in rows."""
    return calibration(rows["confidence"].to_numpy(), is_right(rows))


def _tables(
    lines_of_runs: Sequence[tuple], lines_of_groups: Sequence[tuple]
) -> dict[str, pd.DataFrame]:
    """The tables of `sample_tables`.

    Args:
        lines_of_runs: values of a run, dataset, n, `CALIBRATION_BEFORE` and `LINE_COLUMNS`.
        lines_of_groups: values of `GROUP`, and estimates of `SHARES` and `SCORES`.
    """
    keys = [*RUN_COLUMNS, "dataset", "n"]
    by_run_columns = [*keys, *CALIBRATION_BEFORE, *LINE_COLUMNS]
    table_of_runs = pd.DataFrame(lines_of_runs, columns=by_run_columns).astype({"n_real": "Int64"})
    flip_columns = _estimate_columns(SHARES)
    score_columns = _estimate_columns(SCORES)
    by_group_columns = [*GROUP, *flip_columns, *score_columns]
    table_of_groups = pd.DataFrame(lines_of_groups, columns=by_group_columns)
    return {
        "samples": table_of_runs[[*keys, *SHARES, *CALIBRATION]],
        "scores": table_of_runs[[*keys, *SCORES, *REAL]],
        "flips": table_of_groups[[*GROUP, *flip_columns]],
        "mean_scores": table_of_groups[[*GROUP, *score_columns]],
    }


def _estimate_columns(names: Iterable[str]) -> list[str]:
    """Columns of estimates with these names, and of the ends of their intervals."""
    columns = []
    for name in names:
        columns += [name, f"{name}_low", f"{name}_high"]
    return columns
