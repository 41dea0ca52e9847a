"""Per-image effects of fine-tuning: agreement, flips, calibration and scores. No torch.

On one dataset, for the pretrained model's prediction p and the fine-tuned model's
prediction f:

    agreement       fraction of images with f = p
    right to wrong  fraction of images with p right and f wrong
    wrong to right  fraction of images with p wrong and f right

The change of accuracy is wrong to right minus right to wrong. An unchanged accuracy can hide many
flips. Rows are read one run at a time to bound memory.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rib.analyses.samples.class_scores import (
    ACCURACY,
    CLASS_SCORES,
    MACRO_F1,
    WORST_GROUP,
    ImageCategories,
    ImageTallies,
    SummedClassScores,
    compared_class_scores,
)
from rib.analyses.samples.resampled_means import DatasetObjects, ResampledObjects, SummedRuns
from rib.analyses.samples.scores import REAL, SCORES, compared_scores, real_accuracies, real_answers
from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.params import from_params
from rib.base.progress import Progress
from rib.catalog.label_space import LabelSpace, read_real_labels
from rib.data.dataset import INDEX_COLUMNS
from rib.schema.layout import Layout
from rib.schema.run import MEAN, PRETRAINED, RUN_COLUMNS, Run
from rib.statistics.bootstrap import estimate
from rib.statistics.calibration_error import calibration_error_and_floor
from rib.statistics.counts import (
    SOURCE,
    RowFiles,
    ScoredRows,
    read_indexes,
    read_objects,
    shared_objects,
)
from rib.statistics.inputs import Inputs
from rib.statistics.sample_rows import SHARES, compare_predictions, is_right, read_rows
from rib.statistics.statistics_settings import RIStatistics

CALIBRATION = ("ece_before", "ece_floor_before", "ece_after", "ece_floor_after")
COLUMNS = ("row", "prediction", "rank", "confidence", "log_prob", "brier")
GROUP = ["model", "method", "size"]
WHEN = ("before", "after", "change")
# Columns of ri_scores.
RI_OF = {ACCURACY: "ri", MACRO_F1: "ri_macro_f1", WORST_GROUP: "ri_worst_group"}
RowsByDataset = Mapping[str, pd.DataFrame]  # a run's evaluation rows


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: samples, scores, flips, mean_scores and perhaps ri_scores."""
    params = inputs.params
    return sample_tables(
        inputs.rows(params["methods"]),
        inputs.paths("classes"),
        ri=from_params(RIStatistics, params["ri"]),
        real_labels=params["real_labels"],
        groups=params["groups"],
        scores=params["scores"],
    )


def sample_tables(
    files: RowFiles,
    classes: Iterable[Path],
    *,
    ri: RIStatistics,
    real_labels: Collection[str],
    groups: Mapping[str, str],
    scores: Collection[str],
) -> dict[str, pd.DataFrame]:
    """How predictions change with fine-tuning: tables of flips, calibration and scores of a grid.

    Args:
        files: rows of all runs except curves.
        classes: label space files .../<dataset>/<geometry>/classes.json.
        real_labels: datasets that are also scored with ReaL labels.
        groups: column of the index with groups of images, by dataset that has groups, such as
            {"waterbirds": "background"}.
        scores: scores with RI and intervals besides accuracy: `macro_f1`, `worst_group`.

    Returns:
        Tables by name, in percent.
        samples: one row per fine-tuned run and dataset: model, method, target, size, seed, dataset,
        n, agreement, right_to_wrong, wrong_to_right, ece_before, ece_after and their floors.
        flips: one row per model, method and size: means of the three shares over targets, seeds and
        the datasets other than the target, with confidence intervals over objects.
        scores: the rows of samples: `SCORES`, `REAL` (empty without ReaL labels) and `CLASS_SCORES`
        (worst group empty without groups).
        mean_scores: the rows of flips: the same means of `SCORES` and `CLASS_SCORES`, with
        intervals, for `CLASS_SCORES` only if `scores` asks for them. Top-5 is empty if one of the
        datasets has fewer than six classes; means of the worst group are over the datasets with
        groups.
        ri_scores, if `scores` has any: RI (mean change) of accuracy and of these scores by model,
        method, target and size, a mean over seeds; target `mean` is over all targets. RI of other
        scores is empty.

    Raises:
        UserError: the ReaL labels don't have an image of a dataset in `real_labels`, two runs were
            scored on different images, or a dataset lacks the column with its groups.
    """
    files_of_run = files.of_runs()
    pretrained_runs = {run.model: run for run in files_of_run if run.method == PRETRAINED}
    fine_tuned_runs = [run for run in files_of_run if run.method != PRETRAINED]
    fine_tuned_runs.sort(key=_group_of)
    first_model = min(pretrained_runs)
    first_run = pretrained_runs[first_model]
    first_rows = read_rows(PRETRAINED, files_of_run[first_run], COLUMNS)
    spaces = {Layout.dataset_of(path): LabelSpace.from_json(read_json(path)) for path in classes}
    targets = {run.target for run in fine_tuned_runs}
    resampling = _resampled_objects(files.indexes, first_rows, targets, ri)
    comparer = _Comparer(
        spaces=spaces,
        answers=_read_real_answers(files.indexes, real_labels, first_rows, spaces),
        resampling=resampling,
    )
    categories = _image_categories(files.indexes, first_rows, spaces, resampling, groups)

    lines_of_runs: list[dict[str, Any]] = []
    lines_of_groups: list[dict[str, Any]] = []
    lines_of_ri: list[dict[str, Any]] = []
    progress = Progress(fine_tuned_runs, desc="comparing runs", unit="run")
    for model, runs_of_model in itertools.groupby(progress, key=_model_of):
        pretrained_run = pretrained_runs[model]
        before = _ScoredRun.read(pretrained_run, files_of_run[pretrained_run], categories)
        for dataset, rows in before.rows.items():
            # All models must share the images of the first one.
            compare_predictions(first_rows[dataset], rows, dataset, (first_run, pretrained_run))
        for group, runs_of_group in itertools.groupby(runs_of_model, key=_group_of):
            sums_of_group = _GroupSums(comparer.resampling, ri, scores)
            for run in runs_of_group:
                after = _ScoredRun.read(run, files_of_run[run], categories)
                lines, sums = comparer.compare(before, after)
                lines_of_runs += lines
                sums_of_group.add(before, after, sums)
            lines_of_groups.append(sums_of_group.line_of_means(group))
            lines_of_ri += sums_of_group.lines_of_ri(group)
    tables = _tables(lines_of_runs, lines_of_groups)
    if scores:
        keys = ["model", "method", "target", "size"]
        columns_of_ri = [*keys, *_estimate_columns(RI_OF.values())]
        tables["ri_scores"] = pd.DataFrame(lines_of_ri, columns=columns_of_ri)
    return tables


@dataclass
class _GroupSums:
    """Adds up the runs of one model, method and size, for rows of means over them."""

    resampling: ResampledObjects
    ri: RIStatistics
    scores: Collection[str]  # scores with RI besides accuracy

    def __post_init__(self) -> None:
        self._scores_of_images = SummedRuns(self.resampling)
        self._class_scores: dict[str, SummedClassScores] = {}

    def add(
        self, before: "_ScoredRun", after: "_ScoredRun", sums: Mapping[str, np.ndarray]
    ) -> None:
        """Adds a run; `sums` (k, objects) by dataset: `SHARES` and `SCORES` by object."""
        target = after.run.target
        self._scores_of_images.add(target, sums)
        if target not in self._class_scores:
            # Without replicates there are no intervals, which take most of the time.
            replicates = self.ri.replicates if self.scores else 0
            self._class_scores[target] = SummedClassScores(self.resampling, replicates)
        self._class_scores[target].add(target, before.tallies, after.tallies)

    def line_of_means(self, group: Sequence[str]) -> dict[str, Any]:
        """{"model": "net", ..., "agreement": 90.1, "agreement_low": 88.2, ...}, over runs."""
        confidence = self.ri.confidence
        return {
            **dict(zip(GROUP, group, strict=True)),
            **_estimates(self._scores_of_images.means(), confidence),
            **_class_score_estimates(self._mean_class_scores(), confidence),
        }

    def lines_of_ri(self, group: Sequence[str]) -> list[dict[str, Any]]:
        """[{"model": "net", ..., "target": "noto", "ri": -1.2, ...}], the last over all targets."""
        means_of_targets = {target: sums.means() for target, sums in self._class_scores.items()}
        means_of_targets[MEAN] = self._mean_class_scores()
        lines = []
        for target, means in means_of_targets.items():
            line = dict(zip(GROUP, group, strict=True))
            ri_of_scores = _ri_of_scores(means, self.scores, self.ri.confidence)
            lines.append({**line, "target": target, **ri_of_scores})
        return lines

    def _mean_class_scores(self) -> dict[str, np.ndarray]:
        """(3, 1 + replicates) by score: before, after and change."""
        return _mean_over_targets([sums.means() for sums in self._class_scores.values()])


def _mean_over_targets(
    means_of_targets: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Before, after and change of each score, (3, 1 + replicates), over targets that have it."""
    of_score: dict[str, list[np.ndarray]] = {}
    for means in means_of_targets:
        for score, before_after_and_change in means.items():
            of_score.setdefault(score, []).append(before_after_and_change)
    return {score: np.mean(of_targets, axis=0) for score, of_targets in of_score.items()}


def _class_score_estimates(means: Mapping[str, np.ndarray], confidence: float) -> dict[str, float]:
    """Columns of mean_scores: {"macro_f1_before": 79.2, "macro_f1_before_low": 78.0, ...}."""
    # `means` are (3, 1 + replicates) by score: before, after and change.
    columns: dict[str, float] = {}
    for score in (MACRO_F1, WORST_GROUP):
        if score in means:
            for when, observed_and_replicates in zip(WHEN, means[score], strict=True):
                columns |= _estimate_of(f"{score}_{when}", observed_and_replicates, confidence)
    return columns


def _ri_of_scores(
    means: Mapping[str, np.ndarray], scores: Iterable[str], confidence: float
) -> dict[str, float]:
    """Mean change of each score as columns: {"ri": -1.2, "ri_low": -2, ..., "ri_macro_f1": ...}."""
    columns: dict[str, float] = {}
    for score in (ACCURACY, *scores):
        if score in means:
            _, _, change = means[score]
            columns |= _estimate_of(RI_OF[score], change, confidence)
    return columns


def _estimate_of(
    name: str, observed_and_replicates: np.ndarray, confidence: float
) -> dict[str, float]:
    """A value and its interval: {"ri": -1.2, "ri_low": -2, "ri_high": -0.4}."""
    mean, low, high = estimate(observed_and_replicates, confidence)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _model_of(run: Run) -> str:
    """Key of groupby: all runs of a model are compared with its pretrained run."""
    return run.model


def _group_of(run: Run) -> tuple[str, ...]:
    """Key of groupby for runs whose means are reported: ("net", "ft", "all")."""
    return run.values(GROUP)


def _estimates(means: np.ndarray, confidence: float) -> dict[str, float]:
    """Columns of a comparison with the pretrained model: {"agreement": 90.1, "agreement_low": ...}.

    Args:
        means: (1 + replicates, names), the observed value first: shares of images in percent, such
            as images with the same prediction, then scores of probabilities.
    """
    columns: dict[str, float] = {}
    names = [*SHARES, *SCORES]
    for name, observed_and_replicates in zip(names, means.T, strict=True):
        columns |= _estimate_of(name, observed_and_replicates, confidence)
    return columns


@dataclass(frozen=True)
class _ScoredRun:
    """A run with its rows, their calibration and numbers of images (tallies), by dataset."""

    run: Run
    rows: RowsByDataset
    calibration: Mapping[str, tuple[float, float]]  # error and floor by dataset, percent
    categories: Mapping[str, ImageCategories]  # by dataset

    @classmethod
    def read(
        cls, run: Run, paths: Iterable[Path], categories: Mapping[str, ImageCategories]
    ) -> "_ScoredRun":
        """Reads a run from its files of rows; `categories` of images are by dataset."""
        rows = read_rows(run.method, paths, COLUMNS)
        calibration = {
            dataset: calibration_error_and_floor(
                rows_of_dataset["confidence"].to_numpy(), is_right(rows_of_dataset)
            )
            for dataset, rows_of_dataset in rows.items()
        }
        return cls(run, rows, calibration, categories)

    @cached_property
    def tallies(self) -> dict[str, ImageTallies]:
        """Cached, since each fine-tuned run is compared with the same pretrained run."""
        # `compare_predictions` has checked that the rows are of the same images as the categories.
        return {
            dataset: self.categories[dataset].tally(rows_of_dataset)
            for dataset, rows_of_dataset in self.rows.items()
        }


@dataclass(frozen=True)
class _Comparer:
    """Compares fine-tuned runs with their pretrained model."""

    spaces: Mapping[str, LabelSpace]  # by dataset
    answers: Mapping[str, np.ndarray]  # (images, classes) bool by dataset with ReaL labels
    resampling: ResampledObjects

    def compare(
        self, before: _ScoredRun, after: _ScoredRun
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """A line of the tables for each dataset, and sums (k, objects) of `SHARES` and `SCORES`."""
        lines = []
        sums = {}
        runs = (before.run, after.run)
        # All datasets are checked before `tallies`, which counts images of all.
        differences = {
            dataset: compare_predictions(rows_before, after.rows[dataset], dataset, runs)
            for dataset, rows_before in before.rows.items()
        }
        for dataset, rows_before in before.rows.items():
            rows_after = after.rows[dataset]
            classes = len(self.spaces[dataset].keys)
            # (n,) each: percent, 0 or 100, for SHARES; and SCORES.
            shares = [100.0 * differences[dataset][share] for share in SHARES]
            scores = compared_scores(rows_before, rows_after, classes)
            sums[dataset] = self.resampling.sum_by_object(dataset, [*shares, *scores])

            # Means over the dataset.
            mean_shares = [np.mean(share) for share in shares]
            calibration = (*before.calibration[dataset], *after.calibration[dataset])
            mean_scores = scores.mean(axis=1)
            accuracies = real_accuracies(rows_before, rows_after, self.answers.get(dataset))
            line = {
                **vars(after.run),
                "dataset": dataset,
                "n": len(rows_before),
                **dict(zip(SHARES, mean_shares, strict=True)),
                **dict(zip(CALIBRATION, calibration, strict=True)),
                **dict(zip(SCORES, mean_scores, strict=True)),
                **dict(zip(REAL, accuracies, strict=True)),
                **compared_class_scores(before.tallies[dataset], after.tallies[dataset]),
            }
            lines.append(line)
        return lines, sums


def _resampled_objects(
    indexes: Collection[Path],
    rows: RowsByDataset,
    targets: Iterable[str],
    ri: RIStatistics,
) -> ResampledObjects:
    """Objects and bootstrap draws of the scored images, which `rows` of any one run name."""
    index_of_dataset = read_objects(indexes, ri.source_groups, ["object_id"])
    objects = {}
    scored = {}
    for dataset, rows_of_dataset in rows.items():
        index_of_images = index_of_dataset[dataset].iloc[rows_of_dataset["row"]]
        objects[dataset] = _objects_of(index_of_images)
        scored[dataset] = ScoredRows(
            index=index_of_images,
            rows=np.arange(len(index_of_images)),  # all of them
            object_of_row=objects[dataset].object_of_image,
        )
    return ResampledObjects.of(objects, shared_objects(scored, targets), ri)


def _image_categories(
    indexes: Collection[Path],
    rows: RowsByDataset,
    spaces: Mapping[str, LabelSpace],
    resampling: ResampledObjects,
    groups: Mapping[str, str],
) -> dict[str, ImageCategories]:
    """Object, class and group of each scored image, which `rows` of any one run name."""
    categories = {}
    for path in indexes:
        dataset = Layout.dataset_of(path)
        if dataset not in rows:
            continue
        images = rows[dataset]["row"].to_numpy()
        labels = read_indexes([path], ["label"])[dataset]["label"].to_numpy()
        group_of_image = None
        if dataset in groups:
            group_of_row = _read_groups(path, groups[dataset])
            group_of_image, _ = pd.factorize(group_of_row.iloc[images])
        categories[dataset] = ImageCategories(
            object_of_image=resampling.object_of_image[dataset],
            objects=len(resampling.images[dataset]),
            label_of_image=labels[images],
            classes=len(spaces[dataset].keys),
            group_of_image=group_of_image,
        )
    return categories


def _read_groups(index: Path, column: str) -> pd.Series:
    """Group of each image of an index; a UserError if it lacks the column."""
    slices = [name for name in pq.read_schema(index).names if name not in INDEX_COLUMNS]
    dataset = Layout.dataset_of(index)
    if column not in slices:
        choice = f"choose from {', '.join(slices)}" if slices else "its layout gives no column"
        raise UserError(
            f"datasets.yaml, {dataset}: groups is '{column}', which its index lacks; {choice}."
        )
    return read_indexes([index], [column])[dataset][column]


def _objects_of(index: pd.DataFrame) -> DatasetObjects:
    """Object of each image; with `SOURCE`, an object occurs once for each of its source images."""
    columns = ["object_id"]
    if SOURCE in index:
        columns.append(SOURCE)
    groups = index.groupby(columns, sort=True)
    ids = groups.size().index.get_level_values("object_id")
    return DatasetObjects(object_of_image=groups.ngroup().to_numpy(), ids=ids)


def _read_real_answers(
    indexes: Collection[Path],
    real_labels: Collection[str],
    rows: RowsByDataset,
    spaces: Mapping[str, LabelSpace],
) -> dict[str, np.ndarray]:
    """Classes that are right for an image by ReaL labels, which may be several, by dataset."""
    # (n, classes) bool; `rows` of any one run name the images.
    paths = [path for path in indexes if Layout.dataset_of(path) in real_labels]
    answers = {}
    for dataset, index in read_indexes(paths, ["image_id"]).items():
        image_ids = index["image_id"].iloc[rows[dataset]["row"]]
        answers[dataset] = real_answers(dataset, image_ids, spaces[dataset], read_real_labels())
    return answers


def _tables(
    lines_of_runs: Sequence[Mapping[str, Any]], lines_of_groups: Sequence[Mapping[str, Any]]
) -> dict[str, pd.DataFrame]:
    """The tables, from a line per run and dataset and a line per model, method and size."""
    keys = [*RUN_COLUMNS, "dataset", "n"]
    columns_of_runs = [*keys, *SHARES, *CALIBRATION, *SCORES, *REAL, *CLASS_SCORES]
    table_of_runs = pd.DataFrame(lines_of_runs, columns=columns_of_runs).astype({"n_real": "Int64"})
    flip_columns = _estimate_columns(SHARES)
    score_columns = _estimate_columns([*SCORES, *CLASS_SCORES])
    columns_of_groups = [*GROUP, *flip_columns, *score_columns]
    table_of_groups = pd.DataFrame(lines_of_groups, columns=columns_of_groups)
    return {
        "samples": table_of_runs[[*keys, *SHARES, *CALIBRATION]],
        "scores": table_of_runs[[*keys, *SCORES, *REAL, *CLASS_SCORES]],
        "flips": table_of_groups[[*GROUP, *flip_columns]],
        "mean_scores": table_of_groups[[*GROUP, *score_columns]],
    }


def _estimate_columns(names: Iterable[str]) -> list[str]:
    """["ri"] gives ["ri", "ri_low", "ri_high"]."""
    columns = []
    for name in names:
        columns += [name, f"{name}_low", f"{name}_high"]
    return columns
