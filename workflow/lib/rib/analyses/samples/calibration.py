"""Calibration error before and after fine-tuning: one dumbbell per dataset.

There is one panel per model and method.
"""

import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import TICKDOWN, TICKUP

from rib.base.appearance import DARK_BLUE, GREY, PRETRAINED_LABEL
from rib.figures import NOTE_CHARACTERS, Drawn, Labels, ModelAndMethod, label_of_run
from rib.figures._panels import name_rows, run_panels

MARKS_RUNS = True
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
        "marker": TICKUP,
        "linewidth": 1.5,
        "color": GREY,
        "label": "floor before",
    },
    "ece_floor_after": {
        "s": 16,
        "marker": TICKDOWN,
        "linewidth": 1.5,
        "color": DARK_BLUE,
        "label": "floor after",
    },
}
FLOOR = (
    "floor (ticks): what a perfectly calibrated model with as many images and the same confidences "
    "has by chance"
)


def draw(
    samples: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    datasets: Labels,
    unfinished: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Expected calibration error and its floor, in percent.

    They are means over seeds and the targets other than the dataset.

    Args:
        samples: columns model, method, target, seed, dataset, ece_before, ece_after,
            ece_floor_before, ece_floor_after.
        unfinished: models and methods with an unfinished run; their panels are marked.
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
        method_label = label_of_run(methods[method], (model, method), unfinished)
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
    """Connect the error before and after with a line, for each dataset with results.

    Args:
        errors: a row per dataset, with the columns of MARKS; NaN without results.
    """
    rows = np.flatnonzero(errors["ece_after"].notna())
    errors = errors.iloc[rows]
    axes.hlines(
        rows, errors["ece_before"], errors["ece_after"], color=GREY, linewidth=1.2, zorder=1
    )
    for column, style in MARKS.items():
        axes.scatter(errors[column], rows, zorder=2, **style)
