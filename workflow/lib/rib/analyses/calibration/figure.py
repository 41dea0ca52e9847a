"""Draws the figure `calibration`."""

import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rib.base.appearance import DARK_BLUE, GREY, PRETRAINED_LABEL
from rib.figures import NOTE_CHARACTERS, Drawn, Labels, ModelAndMethod, label_of_run
from rib.figures._panels import name_rows, run_panels

TICK_UP, TICK_DOWN = 2, 3  # Matplotlib's markers
MARKS: dict[str, dict[str, Any]] = {
    "ece_before": {
        "s": 18,
        "facecolor": "white",
        "edgecolor": DARK_BLUE,
        "label": f"before ({PRETRAINED_LABEL})",
    },
    "ece_after": {
        "s": 18,
        "facecolor": DARK_BLUE,
        "edgecolor": DARK_BLUE,
        "label": "after fine-tuning",
    },
    "ece_floor_before": {
        "s": 16,
        "marker": TICK_UP,
        "linewidth": 1.5,
        "color": GREY,
        "label": "floor before",
    },
    "ece_floor_after": {
        "s": 16,
        "marker": TICK_DOWN,
        "linewidth": 1.5,
        "color": DARK_BLUE,
        "label": "floor after",
    },
}
FLOOR = (
    "floor (ticks): what a perfectly calibrated model with as many images and the same confidences "
    "has by chance"
)


def draw_calibration(
    samples: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    datasets: Labels,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw how far confidence is from accuracy before and after fine-tuning, in percent.

    It is the expected calibration error, mean over seeds and the targets other than the
    dataset. The floor is what a perfectly calibrated model has by chance.

    Args:
        samples: columns model, method, target, seed, dataset, ece_before, ece_after,
            ece_floor_before, ece_floor_after.
        models, methods, datasets: labels, {"ft": "FT"}.
        underfitted: pairs to mark, {("net", "ft")}, with low accuracy on training images.
    """
    on_other_datasets = samples[samples["target"] != samples["dataset"]]
    runs = on_other_datasets.groupby(["model", "method", "dataset"], sort=False)
    errors = runs[list(MARKS)].mean()
    figure, panels = run_panels(
        errors, models, methods, panel=(1.8, 0.45 + 0.2 * len(datasets)), margin=(1.2, 0.9)
    )
    shown_rows = errors.reset_index()
    for (model, method), axes in panels.items():
        is_shown_here = (shown_rows["model"] == model) & (shown_rows["method"] == method)
        errors_of_datasets = shown_rows[is_shown_here].set_index("dataset")
        _draw_dumbbells(axes, errors_of_datasets.reindex(list(datasets)))
        method_label = label_of_run(methods[method], (model, method), underfitted)
        axes.set_title(f"{models[model]},\n{method_label}", fontsize=8)
        axes.tick_params(labelsize=7)
        name_rows(axes, list(datasets.values()))
    first_panel = figure.axes[0]
    first_panel.set_xlim(0, max(5, 1.06 * errors.to_numpy().max()))
    note = textwrap.fill(FLOOR, int(NOTE_CHARACTERS * figure.get_figwidth()))
    figure.supxlabel(f"expected calibration error (%)\n{note}", fontsize=8)
    handles, labels = first_panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure, shown_rows


def _draw_dumbbells(axes: Axes, errors: pd.DataFrame) -> None:
    """Draw errors and floors of each dataset with results, and a line from before to after."""
    rows = np.flatnonzero(errors["ece_after"].notna())
    errors = errors.iloc[rows]
    axes.hlines(
        rows, errors["ece_before"], errors["ece_after"], color=GREY, linewidth=1.2, zorder=1
    )
    for column, style in MARKS.items():
        axes.scatter(errors[column], rows, zorder=2, **style)
