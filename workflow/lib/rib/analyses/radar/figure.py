"""Draws the figure `radar`."""

import math
import textwrap
from collections.abc import Collection
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.projections.polar import PolarAxes

from rib.figures import Drawn, Labels, ModelAndMethod, Style, Styles, label_of_run
from rib.schema.run import PRETRAINED

LABEL_CHARACTERS = 16  # per line of a dataset's label
LEGEND_CHARACTERS = 60  # per line of the legend


def draw_radar(
    accuracy: pd.DataFrame,
    *,
    target: str,
    method: str,
    method_label: str,
    models: Styles,
    datasets: Labels,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw accuracy (percent) by dataset before and after fine-tuning, as rings of each model.

    Numbers are means over seeds.

    Args:
        accuracy: columns model, method, target, seed, dataset, accuracy.
        models: {"net": {"label": "Net", "colour": "#ff0000", "marker": "o"}}.
        datasets: labels, {"noto": "Noto"}.
        underfitted: pairs to mark, {("net", "ft")}: the run on the target has low accuracy on its
            training images.
    """

    of_models = accuracy[accuracy["model"].isin(list(models))]
    is_pretrained = of_models["method"] == PRETRAINED
    is_fine_tuned = (of_models["method"] == method) & (of_models["target"] == target)
    runs = of_models[is_pretrained | is_fine_tuned]
    means = runs.groupby(["model", "method", "dataset"], sort=False)["accuracy"].mean()
    shown_rows = means.reset_index()
    angles = np.linspace(0, 2 * np.pi, len(datasets), endpoint=False)
    figure, axes = plt.subplots(figsize=(5.2, 5.2), subplot_kw={"projection": "polar"})
    assert isinstance(axes, PolarAxes)  # because of the projection
    axes.set(theta_zero_location="N", theta_direction=-1)
    axes.grid(True, axis="both")
    for model, style in models.items():
        before = _accuracies(shown_rows, model, PRETRAINED, datasets)
        after = _accuracies(shown_rows, model, method, datasets)
        label_before = f"{style['label']}, before"
        label_of_method = label_of_run(method_label, (model, method), underfitted)
        label_after = f"{style['label']}, after {label_of_method}"
        _draw_ring(axes, angles, before, style, label_before, is_dashed=False)
        _draw_ring(axes, angles, after, style, label_after, is_dashed=True)
    _name_datasets(axes, angles, datasets, target)
    highest = max(10, 10 * np.ceil(shown_rows["accuracy"].max() / 10))
    axes.set(rlabel_position=180 / len(datasets), ylim=(0, highest))
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.tick_params(axis="y", labelsize=7)
    axes.tick_params(axis="x", pad=2, labelsize=8)
    title = f"Top-1 accuracy; fine-tuned on {datasets[target]} (bold)"
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [textwrap.fill(label, LEGEND_CHARACTERS) for label in labels],
        loc="outside upper center",
        title=textwrap.fill(title, LEGEND_CHARACTERS),
        title_fontsize=8,
    )
    return figure, shown_rows


def _accuracies(shown_rows: pd.DataFrame, model: str, method: str, datasets: Labels) -> np.ndarray:
    """Accuracies of a model and method in percent, (datasets,), in the order of `datasets`.

    `shown_rows` has the columns model, method, dataset and accuracy, and one row for each of these
    combinations; `datasets` are labels, {"noto": "Noto"}.
    """
    rows = shown_rows[(shown_rows["model"] == model) & (shown_rows["method"] == method)]
    return rows.set_index("dataset")["accuracy"].loc[list(datasets)].to_numpy()


def _draw_ring(
    axes: PolarAxes,
    angles: np.ndarray,
    accuracies: np.ndarray,
    style: Style,
    label: str,
    is_dashed: bool,
) -> None:
    """Draw accuracies (percent) at angles (radians) as a closed line; if dashed, open markers."""
    axes.plot(
        [*angles, angles[0]],
        [*accuracies, accuracies[0]],
        "--" if is_dashed else "-",
        color=style["colour"],
        linewidth=1.4,
        marker=style["marker"],
        markersize=4.5,
        markerfacecolor="white" if is_dashed else style["colour"],
        label=label,
    )


def _name_datasets(axes: PolarAxes, angles: np.ndarray, datasets: Labels, target: str) -> None:
    """Write labels, {"noto": "Noto"}, at angles (radians) around the circle, the target's bold."""
    names = [textwrap.fill(label, LABEL_CHARACTERS) for label in datasets.values()]
    axes.set_xticks(angles, names)
    for angle, name, text in zip(angles, datasets, axes.get_xticklabels(), strict=True):
        text.set_horizontalalignment(_horizontal_alignment(angle))
        text.set_verticalalignment(_vertical_alignment(angle))
        text.set_fontweight("bold" if name == target else "normal")


def _horizontal_alignment(angle: float) -> Literal["left", "center", "right"]:
    """Lets a label extend outwards; `angle` is in radians, clockwise from the top."""
    side = math.sin(angle)  # 1 at the right, -1 at the left
    if abs(side) < 0.1:
        return "center"
    return "left" if side > 0 else "right"


def _vertical_alignment(angle: float) -> Literal["bottom", "center", "top"]:
    """Keeps labels of several lines off the circle; `angle` in radians, clockwise from the top."""
    height = math.cos(angle)  # 1 at the top, -1 at the bottom
    if abs(height) < 0.9:
        return "center"
    return "bottom" if height > 0 else "top"
