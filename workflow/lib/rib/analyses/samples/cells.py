"""What explains a cell of RI: classes that lose most, and images whose prediction changes.

No torch. A cell is a model, method and target, of the lowest seed. Images are small, of datasets
whose licence allows showing them, and of the same few candidates for all cells, so that the file
stays small.
"""

import base64
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from rib.analyses.samples.settings import CellSettings
from rib.analysis.counts import RowFiles, read_indexes
from rib.analysis.sample_rows import compare_predictions, is_right, read_rows
from rib.base.files import read_json, write_text
from rib.base.progress import Progress
from rib.config.label_space import LabelSpace
from rib.config.run import PRETRAINED, Run, by_run
from rib.data.prepared import PreparedDataset

CLASSES = 5  # of a cell
IMAGES_OF_CELL = {"lost": 4, "gained": 2}  # most images that it shows
CANDIDATES = 400  # images of all datasets together that may be shown
SIDE = 56  # of a shown image in pixels
ROW_COLUMNS = ("row", "prediction", "rank")


class Flip(NamedTuple):
    """An image whose prediction changes. Flips are sorted by order, dataset and row."""

    order: int  # among the candidates of its dataset
    dataset: str
    row: int  # of the dataset's index
    wrong_label: int  # the wrong one of the two predictions


@dataclass
class ClassCounts:
    """A class's images, and how many of them are right before and after fine-tuning."""

    name: str
    images: int = 0
    right_before: int = 0
    right_after: int = 0

    @property
    def change(self) -> float:
        """Change of accuracy, -1 to 1."""
        return (self.right_after - self.right_before) / self.images


def write_cells(
    files: RowFiles, classes: Iterable[Path], settings: CellSettings, cells: Path
) -> None:
    """Write what explains each cell of RI.

    Args:
        files: rows of all runs except curves, and indexes in the folders of the prepared datasets.
        classes: label space of each dataset; folder names identify it.
        settings: what is explained.
        cells: JSON file. `cells` has, by model/method/target, `classes` (see `lost_classes`) and
            `flips` (number of an image in `images`, lost or gained, the wrong prediction); `images`
            are dataset, class and WebP picture as base64.
    """
    files_of_run = by_run(files.rows)
    pretrained_runs = {run.model: run for run in files_of_run if run.method == PRETRAINED}
    explainer = _explainer(files.indexes, classes, settings)
    explained = {}
    model = None
    rows_before: dict[str, pd.DataFrame] = {}
    runs = sorted(_runs_of_cells(files_of_run, settings.size).items())
    for cell, run in Progress(runs, desc="explaining cells", unit="cell"):
        pretrained_run = pretrained_runs[run.model]
        if run.model != model:
            model = run.model
            rows_before = read_rows(files_of_run[pretrained_run].values(), ROW_COLUMNS)
        rows_after = read_rows(files_of_run[run].values(), ROW_COLUMNS)
        explained[cell] = explainer.explain(rows_before, rows_after, (pretrained_run, run))
    facts = {"images": explainer.shown_images(), "cells": explained}
    write_text(cells, json.dumps(facts, ensure_ascii=False, separators=(",", ":")))


def _runs_of_cells(runs: Iterable[Run], size: str) -> dict[str, Run]:
    """The run of each cell, model/method/target: that of the lowest seed."""
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
    """Explains cells, and collects the images that they show."""

    ood_datasets: Collection[str]
    spaces: Mapping[str, LabelSpace]
    labels: Mapping[str, np.ndarray]  # by dataset, (images,) indices into the label space
    shown_datasets: Mapping[str, PreparedDataset]  # those whose images may be shown
    # Numbers of the images that cells show, by dataset and row, from 0.
    number_of_image: dict[tuple[str, int], int] = field(default_factory=dict)

    def explain(
        self,
        rows_before: Mapping[str, pd.DataFrame],
        rows_after: Mapping[str, pd.DataFrame],
        runs: tuple[Run, Run],
    ) -> dict[str, list]:
        """The classes and flips of a cell, see `write_cells`.

        Args:
            rows_before, rows_after: of the pretrained and the fine-tuned run, by dataset.
            runs: these two.

        Raises:
            UserError: the two runs were not scored on the same images.
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
            labels = self.labels[dataset][after["row"]]
            answers.append((self.spaces[dataset], labels, is_right(before), is_right(after)))
            if dataset in self.shown_datasets:
                lost += self._flips(dataset, after, differences["right_to_wrong"])
                gained += self._flips(dataset, before, differences["wrong_to_right"])
        shown = self._shown_flips("lost", lost) + self._shown_flips("gained", gained)
        return {"classes": lost_classes(answers), "flips": shown}

    def _flips(self, dataset: str, wrong_rows: pd.DataFrame, is_flip: np.ndarray) -> list[Flip]:
        """Flips among the candidates of a dataset.

        Args:
            wrong_rows: rows of the run whose predictions are wrong.
            is_flip: (n,) bool.
        """
        # Each dataset has as many candidates.
        images_of_all = len(self.labels[dataset]) * len(self.shown_datasets)
        step = -(-images_of_all // CANDIDATES)  # rounded up
        is_candidate = (wrong_rows["row"] % step == 0).to_numpy()
        flips = wrong_rows.loc[is_flip & is_candidate, ["row", "prediction"]]
        return [
            Flip(row // step, dataset, row, label) for row, label in flips.itertuples(index=False)
        ]

    def _shown_flips(self, kind: str, flips: Iterable[Flip]) -> list[tuple[int, str, str]]:
        """Number of the image, kind and name of the wrong prediction of the first flips."""
        shown = []
        for flip in sorted(flips)[: IMAGES_OF_CELL[kind]]:
            image = (flip.dataset, flip.row)
            number = self.number_of_image.setdefault(image, len(self.number_of_image))
            shown.append((number, kind, self.spaces[flip.dataset].names[flip.wrong_label]))
        return shown

    def shown_images(self) -> list[tuple[str, str, str]]:
        """Dataset, class and picture of the images that cells show, by number."""
        images = []
        for dataset, row in self.number_of_image:
            class_name = self.spaces[dataset].names[self.labels[dataset][row]]
            images.append((dataset, class_name, _picture(self.shown_datasets[dataset], row)))
        return images


def _explainer(
    indexes: Collection[Path], classes: Iterable[Path], settings: CellSettings
) -> _Explainer:
    """An explainer of cells, which has read labels and opened the images that may be shown."""
    spaces = {path.parts[-3]: LabelSpace.from_json(read_json(path)) for path in classes}
    labels = {
        dataset: index["label"].to_numpy()
        for dataset, index in read_indexes(indexes, ["label"]).items()
    }
    shown_datasets = {}
    for path in indexes:
        dataset = path.parts[-3]
        if dataset in settings.publishable:
            shown_datasets[dataset] = PreparedDataset.open(path.parent, dataset, settings.geometry)
    return _Explainer(settings.ood_datasets, spaces, labels, shown_datasets)


def lost_classes(
    answers: Collection[tuple[LabelSpace, np.ndarray, np.ndarray, np.ndarray]],
) -> list[list]:
    """Classes whose accuracy falls most: name, number of images, numbers right before and after.

    Args:
        answers: by dataset, its label space, and of each image the label and whether it is right
            before and after. Classes of two datasets are the same if they have the same network
            outputs.
    """
    counts_of_class: dict[tuple, ClassCounts] = {}
    for space, labels, right_before, right_after in answers:
        images = np.bincount(labels, minlength=len(space.keys))
        images_right_before = np.bincount(labels, right_before, len(space.keys))
        images_right_after = np.bincount(labels, right_after, len(space.keys))
        for label in np.flatnonzero(images):
            outputs = space.indices[label]
            counts = counts_of_class.setdefault(outputs, ClassCounts(space.names[label]))
            counts.images += int(images[label])
            counts.right_before += int(images_right_before[label])
            counts.right_after += int(images_right_after[label])
    lost = [counts for counts in counts_of_class.values() if counts.change < 0]
    lost.sort(key=lambda counts: counts.change)
    return [
        [counts.name, counts.images, counts.right_before, counts.right_after]
        for counts in lost[:CLASSES]
    ]


def _picture(dataset: PreparedDataset, row: int) -> str:
    """The image in a row as a small WebP picture in base64."""
    assert dataset.images is not None  # pixels are opened
    image = Image.fromarray(dataset.images[np.array([row])][0])
    small_image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    webp = io.BytesIO()
    small_image.save(webp, "WEBP", quality=80)
    return base64.b64encode(webp.getvalue()).decode()
