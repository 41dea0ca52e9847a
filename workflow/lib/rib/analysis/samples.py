"""Per-image effects of fine-tuning: agreement with the pretrained model, flips, and calibration. No torch.

On one dataset, for label y, the pretrained model's prediction p and the fine-tuned model's prediction f:

    agreement       fraction of images with f = p
    right to wrong  fraction of images with p = y and f != y
    wrong to right  fraction of images with p != y and f = y

The change of accuracy is wrong to right minus right to wrong. An unchanged accuracy can hide many flips.

The expected calibration error (ECE) bins images by confidence into 15 bins of equal width and averages
|mean confidence - accuracy| over bins, weighted by their number of images (Guo et al. 2017, arXiv 1706.04599, equation
3).

Rows are read one run at a time to bound memory.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rib.analysis.bootstrap import interval, object_weights
from rib.analysis.counts import Counts
from rib.analysis.ri import on_other_datasets
from rib.base.files import write_table
from rib.base.progress import Progress
from rib.config.run import PRETRAINED, RUN_COLUMNS, Run, run_of

BINS = 15  # of the calibration error
SHARES = ("agreement", "right_to_wrong", "wrong_to_right")
GROUP = ["model", "method", "size"]
BLOCK = 200  # bootstrap replicates at once, which bounds memory


@dataclass(frozen=True)
class Scored:
    """A run's predictions on one dataset, in row order.

    Attributes:
        places: (n,) row of each image in the prepared dataset, to match the runs of a model.
        label: (n,) the class.
        prediction: (n,) the predicted class.
        confidence: (n,) softmax probability of the prediction, 0 to 1.
    """

    places: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which predictions are correct: (n,) bool."""
        return self.prediction == self.label


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in percent.

    Args:
        confidence: (n,) of the predictions, 0 to 1.
        right: (n,) bool, whether each is correct.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3: |B|/n * |acc(B) - conf(B)| equals the absolute sum of
    right - confidence over the bin's images, divided by n.
    """
    within = confidence.astype(np.float64).clip(0, 1)  # histogram drops values that rounding puts above 1
    gaps, _ = np.histogram(within, bins=BINS, range=(0, 1), weights=right - within)
    return 100 * float(np.abs(gaps).sum()) / len(within)


def compared(before: Scored, after: Scored) -> dict[str, np.ndarray]:
    """Flags (n,) bool of each of `SHARES`.

    Raises:
        ValueError: the two runs were not scored on the same images.
    """
    if not np.array_equal(before.places, after.places) or not np.array_equal(before.label, after.label):
        raise ValueError("the runs were not scored on the same images")
    was, is_now = before.right, after.right
    flags = (before.prediction == after.prediction, was & ~is_now, ~was & is_now)
    return dict(zip(SHARES, flags, strict=True))


def read_run(paths: Iterable[Path]) -> dict[str, Scored]:
    """A run's predictions by dataset, from all its evaluation groups."""
    found = {}
    for path in paths:
        table = pq.read_table(path, columns=["dataset", "row", "label", "prediction", "confidence"])
        columns = [table[name].to_numpy() for name in ("row", "label", "prediction", "confidence")]
        found |= {name: Scored(*(column[own] for column in columns)) for name, own in _by_dataset(table)}
    return found


def read_objects(paths: Iterable[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Objects by dataset: (objects,) sorted ids, and (n,) index of each image's object, in row order."""
    found = {}
    for path in paths:
        table = pq.read_table(path, columns=["dataset", "object_id"])
        ids = table["object_id"].combine_chunks().dictionary_encode()  # saves memory for millions of images
        names, of_image = np.array(ids.dictionary.to_pylist()), ids.indices.to_numpy()
        for dataset, own in _by_dataset(table):
            present, place = np.unique(of_image[own], return_inverse=True)
            objects, order = np.unique(names[present], return_inverse=True)
            found[dataset] = (objects, order[place])
    return found


def _by_dataset(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each dataset of a table and the mask of its rows: (rows,) bool."""
    datasets = table["dataset"].combine_chunks().dictionary_encode()
    of = datasets.indices.to_numpy()
    for place, name in enumerate(datasets.dictionary.to_pylist()):
        yield name, of == place


class Flips:
    """Images per object in each of `SHARES`, summed over runs of one model, method and size.

    Args:
        objects: see `read_objects`.
        seed: seed of the bootstrap, with the same draws as for RI (rib.analysis.bootstrap.object_weights).
    """

    def __init__(
        self,
        objects: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        replicates: int,
        seed: int,
        ood_datasets: Collection[str],
        source_groups: Mapping[str, str] | None,
    ):
        every = np.unique(np.concatenate([own for own, _ in objects.values()]))
        self.of_image = {dataset: place for dataset, (_, place) in objects.items()}
        self.counts = Counts(
            states=[],
            datasets=list(objects),
            objects=len(every),
            places={dataset: np.searchsorted(every, own) for dataset, (own, _) in objects.items()},
            images={dataset: np.bincount(place).astype(np.uint16) for dataset, place in self.of_image.items()},
            correct={},
        )
        self.weights = object_weights(len(every), replicates, seed)
        self.ood_datasets, self.source_groups = ood_datasets, source_groups or {}

    def per_object(self, dataset: str, flags: Mapping[str, np.ndarray]) -> np.ndarray:
        """Images of each object in each share: (3, objects of the dataset)."""
        places, n = self.of_image[dataset], len(self.counts.images[dataset])
        return np.stack([np.bincount(places[flags[name]], minlength=n) for name in SHARES])

    def means(self, runs: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> np.ndarray:
        """Shares in percent, averaged over runs and the datasets other than their target: (replicates + 1, 3).

        Args:
            runs: target and counts of `per_object` by dataset, for each run.
        """
        parts: dict[tuple[str, str | None], list] = {}
        for target, found in runs:
            others = on_other_datasets(self.counts, target, self.ood_datasets, self.source_groups)
            for dataset, kept in others.items():
                part = parts.setdefault((dataset, None if kept is None else target), [kept, 0.0])
                part[1] = part[1] + found[dataset] / (len(others) * len(runs))
        return sum(self._resampled(dataset, kept, summed) for (dataset, _), (kept, summed) in parts.items())

    def _resampled(self, dataset: str, kept: np.ndarray | None, summed: np.ndarray) -> np.ndarray:
        """Percentage of a dataset's images, or of its remaining objects' images, for each bootstrap replicate."""
        chosen = slice(None) if kept is None else kept
        places, images = self.counts.places[dataset][chosen], self.counts.images[dataset][chosen]
        columns = np.vstack([summed[:, chosen], images]).T
        blocks = (self.weights[start : start + BLOCK, places] for start in range(0, len(self.weights), BLOCK))
        totals = np.concatenate([block.astype(np.float64) @ columns for block in blocks])
        with np.errstate(invalid="ignore"):  # a replicate may have no object of the dataset
            return 100 * totals[:, :-1] / totals[:, -1:]


def _by_run(rows: Iterable[Path]) -> dict[Run, list[Path]]:
    """Files of each run, sorted by model, method and size."""
    found: dict[Run, list[Path]] = {}
    for path in rows:
        found.setdefault(run_of(path), []).append(path)
    return dict(sorted(found.items(), key=lambda item: (item[0].model, item[0].method, item[0].size)))


def sample_line(run: Run, dataset: str, before: Scored, after: Scored, flags: Mapping[str, np.ndarray]) -> tuple:
    """A row of samples.csv."""
    shares = (100 * float(flags[name].mean()) for name in SHARES)
    errors = (calibration_error(scored.confidence, scored.right) for scored in (before, after))
    return (run.model, run.method, run.target, run.size, run.seed, dataset, len(before.label), *shares, *errors)


def _grouped(files: Mapping[Run, list[Path]], progress: Progress) -> Iterator[tuple[tuple, list[tuple], dict]]:
    """Yield model, method and size; an iterator of these runs and their predictions; and the pretrained predictions."""
    same: dict[str, Scored] | None = None
    for model, of_model in itertools.groupby(files, key=lambda run: run.model):
        runs = list(of_model)
        before = read_run(next(files[run] for run in runs if run.method == PRETRAINED))
        same = same or before
        for dataset, scored in before.items():
            compared(same[dataset], scored)  # all models must share the first one's images
        tuned = [run for run in runs if run.method != PRETRAINED]
        for (method, size), group in itertools.groupby(tuned, key=lambda run: (run.method, run.size)):
            yield (model, method, size), _read_each(group, files, progress), before


def _read_each(runs: Iterable[Run], files: Mapping[Run, list[Path]], progress: Progress) -> Iterator[tuple[Run, dict]]:
    for run in runs:
        yield run, read_run(files[run])
        progress.update()


def write_tables(
    *,
    rows: Iterable[Path],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    samples: Path,
    flips: Path,
) -> None:
    """Write both tables from the evaluation rows of a grid.

    Args:
        rows: Parquet files of all runs except curves; folder names identify the run (see `run_of`).
        samples: CSV with one row per fine-tuned run and dataset: model, method, target, size, seed, dataset, n,
            agreement, right_to_wrong, wrong_to_right, ece_before, ece_after (percent).
        flips: CSV with one row per model, method and size: means of the three shares over targets, seeds and the
            datasets other than the target, each with its confidence interval over objects (percent).
    """
    files = _by_run(rows)
    first = next(run for run in files if run.method == PRETRAINED)
    resampling = Flips(
        read_objects(files[first]),
        replicates=replicates,
        seed=seed,
        ood_datasets=ood_datasets,
        source_groups=source_groups,
    )
    progress = Progress(desc="comparing runs", total=sum(run.method != PRETRAINED for run in files), unit="run")
    lines, means = [], []
    for group, runs, before in _grouped(files, progress):
        counted = []
        for run, after in runs:
            flags = {dataset: compared(before[dataset], after[dataset]) for dataset in before}
            lines += [sample_line(run, name, before[name], after[name], flags[name]) for name in before]
            counted.append((run.target, {name: resampling.per_object(name, flags[name]) for name in flags}))
        found = resampling.means(counted)
        shares = ((values[0], *interval(values[1:], confidence)) for values in found.T)
        means.append((*group, *itertools.chain.from_iterable(shares)))
    columns = [name for share in SHARES for name in (share, f"{share}_low", f"{share}_high")]
    tables = {
        samples: pd.DataFrame(lines, columns=[*RUN_COLUMNS, "dataset", "n", *SHARES, "ece_before", "ece_after"]),
        flips: pd.DataFrame(means, columns=[*GROUP, *columns]),
    }
    for path, table in tables.items():
        write_table(path, table.assign(conditions=conditions))
