"""Draws the figure `effective_robustness`."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.lines import Line2D
from scipy.special import expit, logit

from rib.analyses.effective_robustness.tables import Line, lines_of
from rib.base.appearance import INK, PALE
from rib.figures import Drawn, Labels, Style, Styles

TICKS = (0.1, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
MARGIN = 0.25  # of an axis, in logits
SMALLEST = 1e-6  # percent; the logit of 0 is infinite
POINT = ["model", "method", "target", "dataset", "in_distribution"]  # of a mean over seeds
NUMBERS = ["id_before", "ood_before", "id_after", "ood_after", "rho_before", "rho_after"]


def draw_effective_robustness(
    robustness: pd.DataFrame,
    *,
    baselines: Iterable[Mapping[str, Any]],
    models: Styles,
    methods: Labels,
    datasets: Labels,
    confidence: float,
) -> Drawn:
    """Draw accuracy out of distribution against accuracy in distribution, before and after.

    Runs are arrows beside the line of baseline models, in a panel per method and dataset.

    Args:
        robustness: columns model, method, target, dataset, in_distribution, and id_before,
            ood_before, id_after, ood_after (percent), rho_before, rho_after (height above the line,
            in points); seeds are averaged. Rows of the target itself are left out.
        baselines: [{"model": "net", "dataset": "imagenet_v2", "in_distribution": "imagenet", "id":
            70.1, "ood": 58.3}], accuracies in percent.
        models: {"net": {"label": "Net", "colour": "#ff0000", "marker": "o"}}.
        methods: labels, {"ft": "FT"}.
        datasets: label of each dataset; datasets with baselines have a column of panels.
    """

    baseline_table = pd.DataFrame(list(baselines))
    lines = lines_of(baseline_table)
    on_other_datasets = robustness[robustness["target"] != robustness["dataset"]]
    # Columns of POINT lack the seed, so this averages over seeds.
    shown_rows = on_other_datasets.groupby(POINT, sort=False)[NUMBERS].mean().reset_index()
    shown_datasets = [name for name in datasets if name in lines]
    shown_methods = [method for method in methods if method in set(shown_rows["method"])]
    figure, panels = _panels(len(shown_methods), len(shown_datasets))
    for column_of_panels, dataset in zip(panels.T, shown_datasets, strict=True):
        models_of_line = baseline_table[baseline_table["dataset"] == dataset]
        runs = shown_rows[shown_rows["dataset"] == dataset]
        x_limits = _limits([*models_of_line["id"], *runs["id_before"], *runs["id_after"]])
        y_limits = _limits([*models_of_line["ood"], *runs["ood_before"], *runs["ood_after"]])
        for axes, method in zip(column_of_panels, shown_methods, strict=True):
            _draw_line(axes, lines[dataset], models_of_line, x_limits, confidence)
            for run in runs[runs["method"] == method].to_dict("records"):
                _draw_arrow(axes, run, models[run["model"]])
            axes.set_title(f"{datasets[dataset]}, {methods[method]}", fontsize=8)
        _set_logit_axes(column_of_panels[0], x_limits, y_limits)
        in_distribution = models_of_line["in_distribution"].iloc[0]
        column_of_panels[-1].set_xlabel(f"{datasets[in_distribution]} (%)", fontsize=8)
    figure.supylabel("accuracy out of distribution (%)", fontsize=8)
    figure.legend(
        handles=_legend(models, confidence), loc="outside upper center", ncols=2, fontsize=7
    )
    return figure, shown_rows


def _panels(rows: int, columns: int) -> tuple[MatplotlibFigure, np.ndarray]:
    """Panels (rows, columns); a column shares its axes."""
    size = (0.8 + 2.9 * columns, 1.6 + 2.5 * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, sharex="col", sharey="col")


def _limits(accuracies: list[float]) -> tuple[float, float]:
    """Ends of an axis with a margin, in percent: [50, 60] gives about (43.8, 65.8)."""
    logits = logit(np.array(accuracies) / 100)
    low, high = 100 * expit([logits.min() - MARGIN, logits.max() + MARGIN])
    return low, high


def _set_logit_axes(
    axes: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> None:
    """Scale both axes by logits, on which a baseline line is straight; ticks are in percent."""
    functions = (_logit_of_percent, _percent_of_logit)
    axes.set_xscale("function", functions=functions)
    axes.set_yscale("function", functions=functions)
    x_ticks = [tick for tick in TICKS if x_limits[0] <= tick <= x_limits[1]]
    y_ticks = [tick for tick in TICKS if y_limits[0] <= tick <= y_limits[1]]
    axes.set_xticks(x_ticks, [f"{tick:g}" for tick in x_ticks])
    axes.set_yticks(y_ticks, [f"{tick:g}" for tick in y_ticks])
    axes.set_xlim(*x_limits)
    axes.set_ylim(*y_limits)


def _logit_of_percent(percent: np.ndarray) -> np.ndarray:
    """Scale of the axes: logits of accuracies, clipped so that 0 and 100 have finite ones."""
    return logit(np.clip(percent, SMALLEST, 100 - SMALLEST) / 100)


def _percent_of_logit(logits: np.ndarray) -> np.ndarray:
    """Inverse of `_logit_of_percent`, which Matplotlib asks for."""
    return 100 * expit(logits)


def _draw_line(
    axes: Axes, line: Line, baselines: pd.DataFrame, limits: tuple[float, float], confidence: float
) -> None:
    """Draw baseline models and their line, dashed beyond them; `limits` are ends of the x axis."""
    # Evenly spaced in logits, as on the axis.
    first_logit, last_logit = logit(np.array(limits) / 100)
    x = 100 * expit(np.linspace(first_logit, last_logit, 100))  # in percent
    low, high = line.interval(x, confidence)
    axes.fill_between(x, low, high, color="#d9d9d9", linewidth=0, zorder=1)
    axes.plot(x, line.at(x), color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    # Between the baselines, a solid line covers the dashed one.
    fitted_x = np.linspace(line.lowest, line.highest, 50)
    axes.plot(fitted_x, line.at(fitted_x), color=PALE, linewidth=1.4, zorder=2)
    axes.plot(baselines["id"], baselines["ood"], "o", color=PALE, markersize=2, zorder=2)
    axes.tick_params(labelsize=7)
    axes.grid(True, axis="both")


def _draw_arrow(axes: Axes, run: Mapping[Hashable, Any], style: Style) -> None:
    """Draw a run as an arrow from an open marker (before) to a filled one (after)."""
    colour = style["colour"]
    before = (run["id_before"], run["ood_before"])
    after = (run["id_after"], run["ood_after"])
    arrow = {
        "arrowstyle": "-|>,head_width=0.15,head_length=0.3",
        "color": colour,
        "linewidth": 0.7,
        "shrinkA": 2,
        "shrinkB": 2,
    }
    axes.annotate("", after, before, arrowprops=arrow, zorder=3)
    for (x, y), face_colour in ((before, "white"), (after, colour)):
        axes.plot(
            x,
            y,
            style["marker"],
            markersize=4,
            color=colour,
            markerfacecolor=face_colour,
            markeredgewidth=0.8,
            zorder=4,
        )


def _legend(models: Styles, confidence: float) -> list[Line2D]:
    """Handles of the legend: models, before and after, baselines."""
    handles = []
    for style in models.values():
        handles.append(_marker(style["marker"], style["colour"], style["colour"], style["label"]))
    handles.append(_marker("o", "white", INK, "before (open)"))
    handles.append(_marker("o", INK, INK, "after (filled), one per target"))
    baseline_label = f"baseline models, line and {confidence:.0%} confidence interval"
    handles.append(
        Line2D([], [], label=baseline_label, color=PALE, marker="o", markersize=3, linewidth=1.4)
    )
    return handles


def _marker(marker: str, face_colour: str, edge_colour: str, label: str) -> Line2D:
    """An entry of the legend: a marker without line."""
    return Line2D(
        [],
        [],
        color="none",
        markersize=4,
        marker=marker,
        markerfacecolor=face_colour,
        markeredgecolor=edge_colour,
        label=label,
    )
