"""Explains RI (mean change of accuracy) by lost classes and changed predictions. No torch.

A cell is a model, method and target; its run is the one with the lowest seed. Images come from
datasets whose licence allows showing them. All cells choose from the same few candidates, so the
file stays small.
"""

import base64
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from rib.base.files import read_json
from rib.base.progress import Progress
from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
from rib.schema.geometry import Geometry, geometry_of
from rib.schema.layout import Layout
from rib.schema.run import PRETRAINED, Run
from rib.statistics.counts import RowFiles, read_indexes
from rib.statistics.inputs import Inputs
from rib.statistics.sample_rows import compare_predictions, is_right, read_rows

CLASSES = 5  # classes shown per cell
IMAGES_OF_CELL = {"lost": 4, "gained": 2}  # most images shown per cell
CANDIDATES = 400  # over all datasets together
SIDE = 56  # pixels of a shown image
ROW_COLUMNS = ("row", "prediction", "rank")


class Flip(NamedTuple):
    """An image that fine-tuning makes wrong or right. The order of the fields is the sort order."""

    order: int  # position among the images of its dataset that cells may show
    dataset: str
    row: int  # of the dataset's index
    wrong_label: int  # the wrong one of the predictions before and after


@dataclass(frozen=True)
class Answers:
    """Right answers on a dataset before and after fine-tuning."""

    space: LabelSpace
    labels: np.ndarray  # (images,) indices into the label space
    right_before: np.ndarray  # (images,) bool
    right_after: np.ndarray  # (images,) bool


@dataclass
class ClassCounts:
    """Images of a class, and how many are right before and after fine-tuning."""

    name: str
    images: int = 0
    right_before: int = 0
    right_after: int = 0

    @property
    def change(self) -> float:
        """Change of accuracy, -1 to 1."""
        return (self.right_after - self.right_before) / self.images


def tables(inputs: Inputs) -> dict[str, str]:
    """Text of cells.json by its name: classes that lose most, images that flip, for the page.

    The text is {"cells": {"net/ft/noto": {"classes": [...], "flips": [...]}}, "images": [...]}.
    """
    params = inputs.params
    cells = explained_cells(
        inputs.rows(params["methods"]),
        inputs.paths("classes"),
        ood_datasets=params["ood_datasets"],
        size=params["size"],
        publishable=params["publishable"],
        geometry=Geometry(**params["geometry"]),
        uncropped=params["uncropped"],
    )
    return {"cells.json": cells}


def explained_cells(
    files: RowFiles,
    classes: Iterable[Path],
    *,
    ood_datasets: Collection[str],
    size: str,
    publishable: Collection[str],
    geometry: Geometry,
    uncropped: Collection[str],
) -> str:
    """JSON text with lost classes and example images of each cell (model, method and target).

    Args:
        files: rows of all runs except curves, and indexes in the folders of the prepared datasets.
        classes: label space files .../<dataset>/<geometry>/classes.json.
        size: training subset of the runs, such as `all`.
        publishable: datasets whose licence allows showing images.
        geometry: for datasets that are stored as encoded images.
        uncropped: datasets shown without the geometry's crop.

    Returns:
        `cells`, such as {"net/ft/noto": {"classes": [["red panda", 50, 40, 12]], "flips": [[0,
        "lost", "otter"]]}}: classes with numbers of images, right before and right after; flips
        with an index into `images`, the kind and the wrong prediction. `images` are [dataset,
        class, WebP as base64, text that must stand beside it or ""].
    """
    files_of_run = files.of_runs()
    pretrained_runs = {run.model: run for run in files_of_run if run.method == PRETRAINED}
    shown_datasets = _shown_datasets(files.indexes, publishable, geometry, uncropped)
    explainer = _explainer(files.indexes, classes, ood_datasets, shown_datasets)
    explained = {}
    run_before: Run | None = None
    rows_before: dict[str, pd.DataFrame] = {}
    runs_by_model = sorted(_runs_of_cells(files_of_run, size).items())
    for cell, run in Progress(runs_by_model, desc="explaining cells", unit="cell"):
        pretrained_run = pretrained_runs[run.model]
        if pretrained_run != run_before:  # the next model
            run_before = pretrained_run
            rows_before = read_rows(PRETRAINED, files_of_run[pretrained_run], ROW_COLUMNS)
        rows_after = read_rows(run.method, files_of_run[run], ROW_COLUMNS)
        explained[cell] = explainer.explain(rows_before, rows_after, (pretrained_run, run))
    facts = {"images": explainer.shown_images(), "cells": explained}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def _runs_of_cells(runs: Iterable[Run], size: str) -> dict[str, Run]:
    """The run that stands for each cell, with the lowest seed: {"net/ft/noto": run}."""
    run_of_cell: dict[str, Run] = {}
    for run in runs:
        if run.size != size or run.method == PRETRAINED:
            continue
        cell = f"{run.model}/{run.method}/{run.target}"
        if cell not in run_of_cell or run.seed < run_of_cell[cell].seed:
            run_of_cell[cell] = run
    return run_of_cell


@dataclass
class _Explainer:
    """Explains one cell after the other, and numbers the images that they show and share."""

    ood_datasets: Collection[str]
    spaces: Mapping[str, LabelSpace]
    labels: Mapping[str, np.ndarray]  # by dataset, (images,) indices into the label space
    shown_datasets: Mapping[str, PreparedDataset]
    # Number of each shown image, by dataset and row: {("noto", 7): 0}.
    number_of_image: dict[tuple[str, int], int] = field(default_factory=dict)

    def explain(
        self,
        rows_before: Mapping[str, pd.DataFrame],
        rows_after: Mapping[str, pd.DataFrame],
        runs: tuple[Run, Run],
    ) -> dict[str, Sequence[object]]:
        """{"classes": [["red panda", 50, 40, 12]], "flips": [(0, "lost", "otter")]} of a cell.

        Args:
            rows_before, rows_after: by dataset, evaluation rows (row, prediction, rank) of the
                pretrained model and of the fine-tuned one.
            runs: the pretrained run and the fine-tuned one.
        """
        _, tuned_run = runs
        answers = []
        lost: list[Flip] = []
        gained: list[Flip] = []
        for dataset, after in rows_after.items():
            if dataset not in self.ood_datasets or dataset == tuned_run.target:
                continue
            before = rows_before[dataset]
            differences = compare_predictions(before, after, dataset, runs)
            answers.append(
                Answers(
                    space=self.spaces[dataset],
                    labels=self.labels[dataset][after["row"]],
                    right_before=is_right(before),
                    right_after=is_right(after),
                )
            )
            if dataset in self.shown_datasets:
                lost += self._flips(dataset, after, differences["right_to_wrong"])
                gained += self._flips(dataset, before, differences["wrong_to_right"])
        shown = self._shown_flips("lost", lost) + self._shown_flips("gained", gained)
        return {"classes": lost_classes(answers), "flips": shown}

    def _flips(self, dataset: str, wrong_rows: pd.DataFrame, is_flip: np.ndarray) -> list[Flip]:
        """Flips among the candidates: the few images, the same for all cells, that may be shown."""
        # `wrong_rows` are of the run that is wrong on the images that flip (`is_flip`).
        # Every `step`-th row is a candidate. All datasets have about equally many.
        images_of_all = len(self.labels[dataset]) * len(self.shown_datasets)
        step = math.ceil(images_of_all / CANDIDATES)
        is_candidate = (wrong_rows["row"] % step == 0).to_numpy()
        flips = wrong_rows.loc[is_flip & is_candidate, ["row", "prediction"]]
        return [
            Flip(order=row // step, dataset=dataset, row=row, wrong_label=prediction)
            for row, prediction in flips.itertuples(index=False)
        ]

    def _shown_flips(self, kind: str, flips: Iterable[Flip]) -> list[tuple[int, str, str]]:
        """[(3, "lost", "otter")]: number of the image, kind, wrong class; numbers new images."""
        shown = []
        for flip in sorted(flips)[: IMAGES_OF_CELL[kind]]:
            image = (flip.dataset, flip.row)
            next_number = len(self.number_of_image)  # for an image that no cell has shown yet
            number = self.number_of_image.setdefault(image, next_number)
            wrong_class = self.spaces[flip.dataset].names[flip.wrong_label]
            shown.append((number, kind, wrong_class))
        return shown

    def shown_images(self) -> list[tuple[str, str, str, str]]:
        """Dataset, class, WebP picture (base64) and credit of each shown image, by its number."""
        images = []
        for dataset, row in self.number_of_image:  # in the order of the numbers
            label = self.labels[dataset][row]
            class_name = self.spaces[dataset].names[label]
            picture = _picture(self.shown_datasets[dataset], row)
            attribution = self.shown_datasets[dataset].attribution(row)
            credit = f"cropped, resized, rendered; {attribution}" if attribution else ""
            images.append((dataset, class_name, picture, credit))
        return images


def _explainer(
    indexes: Collection[Path],
    classes: Iterable[Path],
    ood_datasets: Collection[str],
    shown_datasets: Mapping[str, PreparedDataset],
) -> _Explainer:
    """Reads label spaces (files `classes`) and the label of each image, by dataset."""
    spaces = {Layout.dataset_of(path): LabelSpace.from_json(read_json(path)) for path in classes}
    labels = {}
    for dataset, index in read_indexes(indexes, ["label"]).items():
        labels[dataset] = index["label"].to_numpy()
    return _Explainer(ood_datasets, spaces, labels, shown_datasets)


def _shown_datasets(
    indexes: Iterable[Path],
    publishable: Collection[str],
    geometry: Geometry,
    uncropped: Collection[str],
) -> dict[str, PreparedDataset]:
    """Datasets whose images may be shown, opened, by name."""
    shown_datasets = {}
    for path in indexes:
        dataset = Layout.dataset_of(path)
        if dataset in publishable:
            geometry_of_dataset = geometry_of(dataset, geometry, uncropped)
            shown_datasets[dataset] = PreparedDataset.open(
                path.parent, dataset, geometry_of_dataset
            )
    return shown_datasets


def lost_classes(answers: Collection[Answers]) -> list[list[str | int]]:
    """Classes whose accuracy falls most: name, number of images, numbers right before and after.

    An example is [["red panda", 50, 40, 12], ["otter", 50, 41, 30]].

    Args:
        answers: one per dataset. Classes of two datasets are the same if they have the same network
            outputs.
    """
    counts_of_class: dict[tuple[int, ...], ClassCounts] = {}  # by network outputs
    for of_dataset in answers:
        space = of_dataset.space
        classes = len(space.keys)
        images = np.bincount(of_dataset.labels, minlength=classes)
        right_before = np.bincount(of_dataset.labels, of_dataset.right_before, classes)
        right_after = np.bincount(of_dataset.labels, of_dataset.right_after, classes)
        for label in np.flatnonzero(images):
            new_counts = ClassCounts(space.names[label])
            counts = counts_of_class.setdefault(space.indices[label], new_counts)
            counts.images += int(images[label])
            counts.right_before += int(right_before[label])
            counts.right_after += int(right_after[label])
    lost = [counts for counts in counts_of_class.values() if counts.change < 0]
    lost.sort(key=lambda counts: counts.change)
    return [
        [counts.name, counts.images, counts.right_before, counts.right_after]
        for counts in lost[:CLASSES]
    ]


def _picture(dataset: PreparedDataset, row: int) -> str:
    """A small WebP of one image, as base64 for JSON."""
    assert dataset.images is not None  # pixels are opened
    image = Image.fromarray(dataset.images[np.array([row])][0])
    small_image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    webp = io.BytesIO()
    small_image.save(webp, "WEBP", quality=80)
    return base64.b64encode(webp.getvalue()).decode()
