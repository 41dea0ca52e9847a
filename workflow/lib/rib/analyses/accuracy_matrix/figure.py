"""Draws the figure `accuracy_matrix`."""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from rib.base.appearance import PRETRAINED_LABEL, SHARED
from rib.base.rounding import whole_percent
from rib.figures import Drawn, Labels, ModelAndMethod, label_of_run, text_colour
from rib.figures._panels import run_panels
from rib.schema.run import NO_TARGET, PRETRAINED


def draw_accuracy_matrix(
    accuracy: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    targets: Labels,
    datasets: Labels,
    source_groups: Labels,
    accuracy_on_target: str,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw the accuracy of each run on each dataset, in percent: targets by datasets.

    Each model and method has a panel with means over seeds. The first row is the pretrained model.

    Args:
        accuracy: columns model, method, target, seed, dataset, accuracy.
        models, methods, targets, datasets: labels, {"ft": "FT"}.
        source_groups: by dataset; datasets of one group are made from the same source images, such
            as {"flat": "fluent", "3d": "fluent"}, and their cells are marked.
        accuracy_on_target: in words, such as `fit of the training images`.
        underfitted: pairs to mark, {("net", "ft")}, with low accuracy on training images.
    """
    runs = accuracy.groupby(["model", "method", "target", "dataset"], sort=False)
    shown_rows = runs["accuracy"].mean()
    rows = {NO_TARGET: PRETRAINED_LABEL, **targets}
    figure, panels = run_panels(
        shown_rows, models, methods, panel=(2.7, 0.4 + 0.28 * len(rows)), margin=(1.3, 1.1)
    )
    has_shared = False
    for (model, method), axes in panels.items():
        cells = _cells(shown_rows, model, method, rows, datasets)
        image = _draw_matrix(axes, cells, rows, datasets)
        for row, target in enumerate(rows):
            for column, dataset in enumerate(datasets):
                is_shared = target != dataset and _share_group(target, dataset, source_groups)
                has_shared = has_shared or is_shared
                _write_number(axes, image, row, column, cells[row, column], is_shared)
                if target == dataset:
                    _outline(axes, row, column)
        method_label = label_of_run(methods[method], (model, method), underfitted)
        axes.set_title(f"{models[model]}, {method_label}", fontsize=8)
    figure.supylabel("fine-tuned on", fontsize=8)
    marks = f"outlined: {accuracy_on_target}"
    if has_shared:
        marks += f"    {SHARED} shares its source images"
    figure.supxlabel(f"evaluated on    ({marks})", fontsize=8)
    _add_colour_bar(figure, image)
    return figure, shown_rows.reset_index()


def _cells(
    shown_rows: pd.Series, model: str, method: str, rows: Labels, datasets: Labels
) -> np.ndarray:
    """Mean accuracies of a panel: (rows, datasets), NaN without runs. `NO_TARGET` is pretrained."""
    cells = np.full((len(rows), len(datasets)), np.nan)
    for row, target in enumerate(rows):
        method_of_row = PRETRAINED if target == NO_TARGET else method
        for column, dataset in enumerate(datasets):
            cells[row, column] = shown_rows.get((model, method_of_row, target, dataset), np.nan)
    return cells


def _draw_matrix(axes: Axes, cells: np.ndarray, rows: Labels, datasets: Labels) -> AxesImage:
    """Colour cells by accuracy and name rows and columns; the image gives the numbers' colours."""
    image = axes.imshow(cells, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    dataset_labels = list(datasets.values())
    axes.set_xticks(range(len(datasets)), dataset_labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=7)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.axhline(0.5, color="black", linewidth=1.2)  # below the pretrained model
    return image


def _share_group(target: str, dataset: str, source_groups: Labels) -> bool:
    """Whether both have the same source images, as in {"flat": "fluent", "3d": "fluent"}."""
    return target in source_groups and source_groups[target] == source_groups.get(dataset)


def _write_number(
    axes: Axes, image: AxesImage, row: int, column: int, accuracy: float, is_shared: bool
) -> None:
    """Write an accuracy in its cell: `71`, or `71‡` if source images are shared."""
    text = ""
    if not math.isnan(accuracy):
        text = whole_percent(accuracy)
        if is_shared:
            text += SHARED
    colour = text_colour(image, accuracy)
    axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)


def _outline(axes: Axes, row: int, column: int) -> None:
    """Frame a cell: the dataset is the target itself, which does not count in RI."""
    corner = (column - 0.47, row - 0.47)
    frame = Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="black", lw=1.4)
    axes.add_patch(frame)


def _add_colour_bar(figure: MatplotlibFigure, image: AxesImage) -> None:
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("top-1 accuracy (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
