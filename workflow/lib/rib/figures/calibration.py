"""Calibration error before and after fine-tuning: one dumbbell per dataset, one panel per model and method."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import TICKDOWN, TICKUP

from rib.figures import Drawn, Labels
from rib.figures._panels import name_rows, run_panels

BLUE, GREY = "#08519c", "#737373"
MARKS = {
    "ece_before": {
        "s": 18,
        "facecolor": "white",
        "edgecolor": BLUE,
        "label": "before (pretrained)",
    },
    "ece_after": {"s": 18, "facecolor": BLUE, "edgecolor": BLUE, "label": "after fine-tuning"},
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
        "color": BLUE,
        "label": "floor after",
    },
}
FLOOR = "floor (ticks): what a perfectly calibrated model with as many images and the same confidences has by chance"


def draw(samples: pd.DataFrame, *, models: Labels, methods: Labels, datasets: Labels) -> Drawn:
    """Expected calibration error and its floor (percent), mean over seeds and the targets other than the dataset.

    Args:
        samples: columns model, method, target, seed, dataset, ece_before, ece_after, ece_floor_before, ece_floor_after.
    """
    on_other_datasets = samples[samples["target"] != samples["dataset"]]
    errors = on_other_datasets.groupby(["model", "method", "dataset"], sort=False)[
        list(MARKS)
    ].mean()
    figure, panels = run_panels(
        errors, models, methods, panel=(1.8, 0.45 + 0.2 * len(datasets)), margin=(1.2, 0.9)
    )
    for run, axes in panels.items():
        _dumbbells(axes, errors.loc[run].reindex(list(datasets)))
        axes.set_title(f"{models[run[0]]},\n{methods[run[1]]}", fontsize=8)
        axes.tick_params(labelsize=7)
        name_rows(axes, list(datasets.values()))
    first = figure.axes[0]
    first.set_xlim(0, max(5, 1.06 * errors.to_numpy().max()))
    note = textwrap.fill(FLOOR, int(15 * figure.get_figwidth()))
    figure.supxlabel(f"expected calibration error (%)\n{note}", fontsize=8)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure, errors.reset_index()


def _dumbbells(axes: Axes, errors: pd.DataFrame) -> None:
    """Connect the error before and after with a line, for each dataset with results."""
    places = np.flatnonzero(errors["ece_after"].notna())
    errors = errors.iloc[places]
    axes.hlines(
        places, errors["ece_before"], errors["ece_after"], color=GREY, linewidth=1.2, zorder=1
    )
    for name, style in MARKS.items():
        axes.scatter(errors[name], places, zorder=2, **style)
