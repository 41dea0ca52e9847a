"""Per-image effects of fine-tuning: agreement with the pretrained model, flips, calibration, scores. No torch.

On one dataset, for the pretrained model's prediction p and the fine-tuned model's prediction f:

    agreement       fraction of images with f = p
    right to wrong  fraction of images with p right and f wrong
    wrong to right  fraction of images with p wrong and f right

The change of accuracy is wrong to right minus right to wrong. An unchanged accuracy can hide many flips.

The expected calibration error (ECE) bins images by confidence into 15 bins of equal width and averages
|mean confidence - accuracy| over bins, weighted by their number of images (Guo et al. 2017, arXiv 1706.04599, equation
3). Its floor is its mean for a perfectly calibrated model, right with the probability of its confidence; it is not 0,
and before and after fine-tuning, with the same images but other confidences, it is not the same.

Rows are read one run at a time to bound memory.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom

from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import (
    EVERY,
    SOURCE,
    Index,
    Shared,
    different_images,
    read_indexes,
    read_objects,
    shared_objects,
)
from rib.analysis.ri import Groups, on_other_datasets
from rib.analysis.scores import REAL, SCORES, compared_scores, real_accuracies, real_answers
from rib.base.files import read_json
from rib.base.progress import Progress
from rib.config.label_space import LabelSpace, read_real_labels
from rib.config.run import PRETRAINED, RUN_COLUMNS, Run, by_run

BINS = 15  # of the calibration error
CALIBRATION = ("ece_before", "ece_floor_before", "ece_after", "ece_floor_after")
SHARES = ("agreement", "right_to_wrong", "wrong_to_right")
COLUMNS = ("row", "prediction", "rank", "confidence", "log_prob", "brier")
GROUP = ["model", "method", "size"]
BLOCK = 200  # bootstrap replicates at once, which bounds memory


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Expected calibration error and its floor, in percent.

    For the floor, the number of right predictions in a bin is taken as binomial with the bin's mean confidence, which
    makes it at most 4 % of itself too large.

    Args:
        confidence: (n,) of the predictions, 0 to 1.
        right: (n,) bool, whether each is correct.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3: |B|/n * |acc(B) - conf(B)| equals the absolute sum of
    right - confidence over the bin's images, divided by n. De Moivre's mean absolute deviation of a binomial
    distribution, 2 k (1 - p) P(k) with k = floor(n p) + 1.
    """
    within = confidence.astype(np.float64).clip(0, 1)  # rounding may have put it above 1
    bins = np.minimum((within * BINS).astype(np.int64), BINS - 1)
    n, expected, gaps = (np.bincount(bins, by, BINS) for by in (None, within, right - within))
    p, k = expected / np.maximum(n, 1), np.floor(expected) + 1
    by_chance = 2 * k * (1 - p) * binom.pmf(k, n, p)
    return 100 * float(np.abs(gaps).sum()) / len(within), 100 * float(by_chance.sum()) / len(within)


def compared(
    before: pd.DataFrame, after: pd.DataFrame, dataset: str, runs: tuple[Run, Run]
) -> dict[str, np.ndarray]:
    """Flags (n,) bool of each of `SHARES`, from the rows of two runs on one dataset (row, prediction, rank).

    Raises:
        UserError: the two runs were not scored on the same images.
    """
    if not np.array_equal(before["row"], after["row"]):
        raise different_images(dataset, *runs)
    same = before["prediction"].to_numpy() == after["prediction"].to_numpy()
    was, is_now = right(before), right(after)
    return dict(zip(SHARES, (same, was & ~is_now, ~was & is_now), strict=True))


def right(rows: pd.DataFrame) -> np.ndarray:
    """Which predictions are correct: (n,) bool."""
    return rows["rank"].to_numpy() == 0


def read_rows(paths: Iterable[Path], columns: Sequence[str] = COLUMNS) -> dict[str, pd.DataFrame]:
    """A run's rows by dataset, from all its evaluation groups."""
    tables = (pd.read_parquet(path, columns=["dataset", *columns]) for path in paths)
    return {
        name: own
        for table in tables
        for name, own in table.groupby("dataset", observed=True, sort=False)
    }


class ObjectMeans:
    """Means of values of images over images, datasets and runs of one model, method and size.

    Args:
        objects: by dataset, (n,) index of each image's object, in row order, and (objects,) sorted ids, of
            which some may be equal.
        seed: seed of the bootstrap, with the same draws as for RI (rib.analysis.bootstrap.object_weights).
        shared: for leak-free means, by target and dataset, as `rib.analysis.counts.Counts.shared`.
    """

    def __init__(
        self,
        objects: Mapping[str, tuple[np.ndarray, pd.Index]],
        replicates: int,
        seed: int,
        shared: Shared | None = None,
    ):
        self.shared = shared or {}
        every = pd.Index(np.unique(np.concatenate([own for _, own in objects.values()])))
        self.of_image = {dataset: place for dataset, (place, _) in objects.items()}
        self.places = {dataset: every.get_indexer(own) for dataset, (_, own) in objects.items()}
        self.images = {
            dataset: np.bincount(place).astype(np.uint16)
            for dataset, place in self.of_image.items()
        }
        self.weights = object_weights(len(every), replicates, seed)

    def per_object(self, dataset: str, values: Iterable[np.ndarray]) -> np.ndarray:
        """Sums over each object's images of k values, each (n,): (k, objects of the dataset)."""
        places, n = self.of_image[dataset], len(self.images[dataset])
        return np.stack([np.bincount(places, weights=own, minlength=n) for own in values])

    def means(
        self,
        runs: Iterable[tuple[str, Mapping[str, np.ndarray]]],
        ood_datasets: Collection[str],
        source_groups: Groups,
    ) -> np.ndarray:
        """Means over images, runs and the datasets other than their target: (replicates + 1, k).

        Args:
            runs: target and sums of `per_object` by dataset, for each run; one is in memory at a time.
        """
        parts: dict[tuple[str, str | None], list] = {}
        number = 0
        for target, found in runs:
            number += 1
            others = on_other_datasets(
                self.places, target, ood_datasets, source_groups, self.shared
            )
            for dataset, kept in others.items():
                part = parts.setdefault((dataset, None if kept is EVERY else target), [kept, 0.0])
                part[1] = part[1] + found[dataset] / len(others)
        return (
            sum(
                self._resampled(dataset, kept, summed)
                for (dataset, _), (kept, summed) in parts.items()
            )
            / number
        )

    def _resampled(self, dataset: str, kept: Index, summed: np.ndarray) -> np.ndarray:
        """Mean over a dataset's images, or its remaining objects' images, for each bootstrap replicate."""
        places, images = self.places[dataset][kept], self.images[dataset][kept]
        columns = np.vstack([summed[:, kept], images]).T
        blocks = (
            self.weights[start : start + BLOCK, places]
            for start in range(0, len(self.weights), BLOCK)
        )
        totals = np.concatenate([block.astype(np.float64) @ columns for block in blocks])
        with np.errstate(invalid="ignore"):  # a replicate may have no object of the dataset
            return totals[:, :-1] / totals[:, -1:]


def _objects_of(index: pd.DataFrame) -> tuple[np.ndarray, pd.Index]:
    """Index of each image's object (n,), and the objects' sorted ids, as `rib.analysis.counts.objects_of`."""
    keys = ["object_id", *([SOURCE] if SOURCE in index else [])]
    groups = index.groupby(keys, sort=True)
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
        `samples` has one row per fine-tuned run and dataset: model, method, target, size, seed, dataset, n, agreement,
        right_to_wrong, wrong_to_right, ece_before, ece_after and their floors (percent). `flips` has one row per model,
        method and size: means of the three shares over targets, seeds and the datasets other than the target, each with
        its confidence interval over objects (percent). `scores` has the rows of `samples`: `SCORES`, then `REAL`, empty
        for datasets without ReaL labels. `mean_scores` has the rows of `flips`: the same means of `SCORES`, with
        intervals. Top-5 is empty if one of the datasets has fewer than six classes.

    Raises:
        UserError: the ReaL labels don't have an image of a dataset in `real_labels`.
    """
    files = by_run(rows)
    pretrained = {run.model: run for run in files if run.method == PRETRAINED}
    first = pretrained[min(pretrained)]
    shared, index = (
        read_rows(files[first].values()),
        read_objects(indexes, source_groups, ["object_id"]),
    )
    images = {name: index[name].iloc[own["row"]] for name, own in shared.items()}
    objects = {name: _objects_of(own) for name, own in images.items()}
    spaces = {path.parts[-3]: LabelSpace.from_json(read_json(path)) for path in classes}
    named = read_indexes([path for path in indexes if path.parts[-3] in real_labels], ["image_id"])
    scored = {name: own["image_id"].iloc[shared[name]["row"]] for name, own in named.items()}
    answers = {
        name: real_answers(name, own, spaces[name], read_real_labels())
        for name, own in scored.items()
    }
    lines, means = [], []
    tuned = sorted(
        (run for run in files if run.method != PRETRAINED), key=lambda run: run.values(GROUP)
    )
    counted = {name: (own, np.arange(len(own)), objects[name][0]) for name, own in images.items()}
    resampling = ObjectMeans(
        objects, replicates, seed, shared_objects(counted, {run.target for run in tuned})
    )
    progress = Progress(tuned, desc="comparing runs", unit="run")

    def per_object(
        run: Run, before: Mapping[str, pd.DataFrame], errors: Mapping
    ) -> tuple[str, dict[str, np.ndarray]]:
        after, sums = read_rows(files[run].values()), {}
        for dataset, own in before.items():
            flags = compared(own, after[dataset], dataset, (pretrained[run.model], run))
            real = real_accuracies(own, after[dataset], answers.get(dataset))
            values = compared_scores(own, after[dataset], len(spaces[dataset].keys))
            shares = [100.0 * flag for flag in flags.values()]
            pair = (
                *errors[dataset],
                *calibration(after[dataset]["confidence"].to_numpy(), right(after[dataset])),
            )
            numbers = (*map(np.mean, shares), *pair, *values.mean(axis=1), *real)
            lines.append((*run.values(RUN_COLUMNS), dataset, len(own), *numbers))
            sums[dataset] = resampling.per_object(dataset, [*shares, *values])
        return run.target, sums

    for model, of_model in itertools.groupby(progress, key=lambda run: run.model):
        before = read_rows(files[pretrained[model]].values())
        for dataset, own in before.items():
            compared(
                shared[dataset], own, dataset, (first, pretrained[model])
            )  # all models must share its images
        errors = {
            name: calibration(own["confidence"].to_numpy(), right(own))
            for name, own in before.items()
        }
        for group, runs in itertools.groupby(of_model, key=lambda run: run.values(GROUP)):
            found = resampling.means(
                (per_object(run, before, errors) for run in runs), ood_datasets, source_groups
            )
            estimates = (estimate(values, confidence) for values in found.T)
            means.append((*group, *itertools.chain.from_iterable(estimates)))
    keys = [*RUN_COLUMNS, "dataset", "n"]
    each = pd.DataFrame(lines, columns=[*keys, *SHARES, *CALIBRATION, *SCORES, *REAL]).astype(
        {"n_real": "Int64"}
    )
    columns = [f"{name}{part}" for name in (*SHARES, *SCORES) for part in ("", "_low", "_high")]
    by_group = pd.DataFrame(means, columns=[*GROUP, *columns])
    return {
        "samples": each[[*keys, *SHARES, *CALIBRATION]],
        "scores": each[[*keys, *SCORES, *REAL]],
        "flips": by_group[[*GROUP, *columns[: 3 * len(SHARES)]]],
        "mean_scores": by_group[[*GROUP, *columns[3 * len(SHARES) :]]],
    }
