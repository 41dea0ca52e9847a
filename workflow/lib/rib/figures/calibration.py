"""Calibration error before and after fine-tuning: one dumbbell per dataset, one panel per model and method."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.figures import panel_lines

WIDEST = 4  # maximum number of panel columns
MARKS = {
    "ece_before": {"facecolor": "white", "label": "before (pretrained)"},
    "ece_after": {"facecolor": "#08519c", "label": "after fine-tuning"},
}


def draw(
    samples: pd.DataFrame, *, models: Mapping[str, str], methods: Mapping[str, str], datasets: Mapping[str, str]
) -> tuple[Figure, pd.DataFrame]:
    """Expected calibration error (percent) before and after, mean over seeds and the targets other than the dataset.

    Args:
        samples: columns model, method, target, seed, dataset, ece_before, ece_after.
    """
    on_other_datasets = samples[samples["target"] != samples["dataset"]]
    errors = on_other_datasets.groupby(["model", "method", "dataset"], sort=False)[["ece_before", "ece_after"]].mean()
    scored = set(errors.index.droplevel("dataset"))
    runs = [(model, method) for model in models for method in methods if (model, method) in scored]
    columns = min(WIDEST, len(methods))
    lines = [line for model in models for line in panel_lines([run for run in runs if run[0] == model], columns)]
    figure, panels = plt.subplots(
        len(lines),
        columns,
        figsize=(1.2 + 1.8 * columns, 0.9 + len(lines) * (0.45 + 0.2 * len(datasets))),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axes, run in zip(panels.flat, (run for line in lines for run in line), strict=True):
        if run is None:
            axes.axis("off")
            continue
        _dumbbells(axes, errors.loc[run].reindex(list(datasets)))
        axes.set_title(f"{models[run[0]]},\n{methods[run[1]]}", fontsize=8)
    panels[0, 0].set_yticks(range(len(datasets)), list(datasets.values()))
    panels[0, 0].set_ylim(len(datasets) - 0.4, -0.6)
    panels[0, 0].set_xlim(0, max(5, 1.06 * errors.to_numpy().max()))
    for column, lowest in zip(panels.T, zip(*lines, strict=True), strict=True):
        drawn = [panel for panel, run in zip(column, lowest, strict=True) if run is not None]
        for panel in drawn[-1:]:
            panel.xaxis.set_tick_params(labelbottom=True)  # the panel below may be missing
    figure.supxlabel("expected calibration error (%)", fontsize=8)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure, errors.reset_index()


def _dumbbells(axes: Axes, errors: pd.DataFrame) -> None:
    """Connect the error before and after with a line, for each dataset with results."""
    places = np.flatnonzero(errors["ece_after"].notna())
    errors = errors.iloc[places]
    axes.hlines(places, errors["ece_before"], errors["ece_after"], color="#737373", linewidth=1.2, zorder=1)
    for name, style in MARKS.items():
        axes.scatter(errors[name], places, s=18, marker="o", edgecolor="#08519c", zorder=2, **style)
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
