"""Out-of-distribution against in-distribution accuracy, before and after fine-tuning, with the baseline models.

Source: Taori et al. 2020 (arXiv 2007.00644), whose scatter plots have these axes.
"""

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.special import expit, logit

from rib.analysis.effective_robustness import Line, lines_of
from rib.figures import Drawn, Labels, Styles

TICKS = (0.1, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
MARGIN = 0.25  # margin of an axis in logits
GREY, INK = "#8c8c8c", "#252525"


def draw(
    robustness: pd.DataFrame,
    *,
    baselines: Iterable[Mapping],
    models: Styles,
    methods: Labels,
    datasets: Labels,
    confidence: float,
) -> Drawn:
    """Arrows from before to after, one panel per method and dataset, on logit axes.

    Args:
        robustness: columns model, method, target, dataset, in_distribution, id_before, ood_before, id_after, ood_after
            (percent); seeds are averaged, and rows of the target itself are not shown.
        baselines: model, dataset, id, ood of each baseline model (percent).
        datasets: label of each dataset; each dataset with baselines has a column of panels.
    """
    stated = pd.DataFrame(baselines)
    lines = lines_of(stated)
    values = ["id_before", "ood_before", "id_after", "ood_after", "rho_before", "rho_after"]
    names = ["model", "method", "target", "dataset", "in_distribution"]
    shown = robustness[robustness["target"] != robustness["dataset"]]
    shown = shown.groupby(names, sort=False)[values].mean().reset_index()
    columns = [name for name in datasets if name in lines]
    rows = [method for method in methods if method in set(shown["method"])]
    size = (0.8 + 2.9 * len(columns), 1.6 + 2.5 * len(rows))
    figure, panels = plt.subplots(
        len(rows), len(columns), figsize=size, squeeze=False, sharex="col", sharey="col"
    )
    for column, name in zip(panels.T, columns, strict=True):
        own, of_dataset = stated[stated["dataset"] == name], shown[shown["dataset"] == name]
        inside = [*own["id"], *of_dataset["id_before"], *of_dataset["id_after"]]
        outside = [*own["ood"], *of_dataset["ood_before"], *of_dataset["ood_after"]]
        for axes, method in zip(column, rows, strict=True):
            _draw_line(axes, lines[name], own, _limits(inside), confidence)
            for _, run in of_dataset[of_dataset["method"] == method].iterrows():
                _draw_arrow(axes, run, models[run["model"]])
            axes.set_title(f"{datasets[name]}, {methods[method]}", fontsize=8)
        _set_axis(column[0], "x", _limits(inside))
        _set_axis(column[0], "y", _limits(outside))
        column[-1].set_xlabel(f"{datasets[own['in_distribution'].iloc[0]]} (%)", fontsize=8)
    figure.supylabel("accuracy out of distribution (%)", fontsize=8)
    figure.legend(
        handles=_legend(models, confidence), loc="outside upper center", ncols=2, fontsize=7
    )
    return figure, shown


def _limits(accuracies: list[float]) -> tuple[float, float]:
    """Ends of an axis, in percent."""
    places = logit(np.array(accuracies) / 100)
    return tuple(100 * expit([places.min() - MARGIN, places.max() + MARGIN]))


def _set_axis(axes: Axes, which: str, limits: tuple[float, float]) -> None:
    """Set a logit axis with ticks in percent."""
    scale = {
        "functions": (lambda x: logit(np.clip(x, 1e-6, 100 - 1e-6) / 100), lambda y: 100 * expit(y))
    }
    getattr(axes, f"set_{which}scale")("function", **scale)
    inside = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    getattr(axes, f"set_{which}ticks")(inside, [f"{tick:g}" for tick in inside])
    getattr(axes, f"set_{which}lim")(*limits)


def _draw_line(
    axes: Axes, line: Line, own: pd.DataFrame, limits: tuple[float, float], confidence: float
) -> None:
    """The baseline models and their line with its confidence interval; dashed where it is extrapolated."""
    places = 100 * expit(np.linspace(*logit(np.array(limits) / 100), 100))
    axes.fill_between(
        places, *line.interval(places, confidence), color="#d9d9d9", linewidth=0, zorder=1
    )
    axes.plot(places, line.at(places), color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    fitted = np.linspace(line.lowest, line.highest, 50)
    axes.plot(fitted, line.at(fitted), color=GREY, linewidth=1.4, zorder=2)
    axes.plot(own["id"], own["ood"], "o", color=GREY, markersize=2, zorder=2)
    axes.tick_params(labelsize=7)
    axes.grid(True, axis="both")


def _draw_arrow(axes: Axes, run: pd.Series, style: Mapping) -> None:
    marker, colour = style["marker"], style["colour"]
    ends = [(run[f"id_{when}"], run[f"ood_{when}"]) for when in ("before", "after")]
    arrow = {"arrowstyle": "-|>,head_width=0.15,head_length=0.3", "color": colour, "linewidth": 0.7}
    axes.annotate("", ends[1], ends[0], arrowprops={**arrow, "shrinkA": 2, "shrinkB": 2}, zorder=3)
    for place, face in zip(ends, ("white", colour), strict=True):
        axes.plot(
            *place,
            marker,
            markersize=4,
            color=colour,
            markerfacecolor=face,
            markeredgewidth=0.8,
            zorder=4,
        )


def _legend(models: Styles, confidence: float) -> list[Line2D]:
    marks = [
        (style["marker"], style["colour"], style["colour"], style["label"])
        for style in models.values()
    ]
    marks += [
        ("o", "white", INK, "before (open)"),
        ("o", INK, INK, "after (filled), one per target"),
    ]
    keys = ("marker", "markerfacecolor", "markeredgecolor", "label")
    handles = [
        Line2D([], [], color="none", markersize=4, **dict(zip(keys, mark, strict=True)))
        for mark in marks
    ]
    line = {"color": GREY, "marker": "o", "markersize": 3, "linewidth": 1.4}
    return [
        *handles,
        Line2D(
            [], [], label=f"baseline models, line and {confidence:.0%} confidence interval", **line
        ),
    ]
