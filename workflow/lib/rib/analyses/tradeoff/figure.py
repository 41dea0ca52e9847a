"""Draws the figures `tradeoff` and `panels`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from rib.base.appearance import INK, PALE, PRETRAINED_LABEL
from rib.figures import Drawn, Labels, Style, Styles
from rib.schema.run import PRETRAINED
from rib.statistics.bootstrap import FEWEST_SEEDS

ORIGIN = {"label": PRETRAINED_LABEL, "colour": INK, "marker": "*"}
# For variants of a method, which share colour and marker.
FILLS = ["full", "none", "left", "bottom", "right", "top"]
MOST_TEXTS = 6  # beside the points of a line
COLUMNS = [
    "model",
    "method",
    "alpha",
    "on_target",
    "on_target_low",
    "on_target_high",
    "mri",
    "ci_low",
    "ci_high",
]


@dataclass(frozen=True)
class Change:
    """The quantity on the vertical axis: a change of accuracy in percentage points."""

    column: str
    low: str  # column of the interval's lower end
    high: str
    label: str  # of the axis


MRI = Change("mri", low="ci_low", high="ci_high", label="mRI (percentage points)")
IN_DISTRIBUTION = Change(
    "in_distribution",
    low="in_distribution_low",
    high="in_distribution_high",
    label="in distribution\n(percentage points)",
)


def draw_tradeoff(
    mri: pd.DataFrame,
    curves: pd.DataFrame,
    in_distribution: pd.DataFrame | None = None,
    *,
    models: Labels,
    methods: Styles,
    averages: Mapping[str, tuple[str, float]],
    rates: Sequence[Sequence[tuple[str, str]]],
    accuracy: str,
    confidence: float,
) -> Drawn:
    """Draw accuracy on the target against mRI (change of accuracy on other datasets).

    A method is a point with both intervals. A line joins averages of pretrained and fine-tuned
    weights, a dotted one the learning rates of a method.

    Args:
        mri: columns model, method, seeds, on_target, on_target_before, mri, and the confidence
            limits of on_target and mri.
        curves: columns model, method, alpha (share of the fine-tuned weights, 0 to 1), downstream
            (accuracy on the target), ri; means are drawn.
        in_distribution: columns model, method, change, ci_low, ci_high of accuracy in distribution;
            None without such datasets.
        models: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        averages: parent and alpha of methods that average the pretrained weights with a parent's:
            {"wise": ("ft", 0.5)}; a line joins them.
        rates: methods that differ in their learning rate alone, each with its rate, from the lowest
            on: [[("ft-lr0.1", "0.1"), ("ft-lr0.2", "0.2")]].
        accuracy: label of accuracy on the target.
    """

    points = pd.concat([_pretrained_points(mri), mri]).reindex(columns=COLUMNS)
    changes = [MRI]
    if in_distribution is not None:
        points = _with_change_in_distribution(points, in_distribution)
        changes.append(IN_DISTRIBUTION)
    curve_means = curves.groupby(["model", "method", "alpha"])[["downstream", "ri"]].mean()
    curve_points = curve_means.reset_index().rename(
        columns={"downstream": "on_target", "ri": "mri"}
    )
    lines = pd.concat([curve_points, *_lines_of_averages(points, averages)])
    lines = lines.assign(beside=_texts_of_alphas(lines["alpha"]), style="-")
    lines = pd.concat([lines, *_lines_of_rates(points, rates)])
    # Curves lack the changes in distribution.
    quantities = [change.column for change in changes]
    lines = lines.reindex(columns=["model", "method", "beside", "style", "on_target", *quantities])
    if mri["seeds"].max() >= FEWEST_SEEDS:
        intervals = "confidence intervals over objects and seeds,\nfor these targets"
    else:
        intervals = "confidence intervals over objects,\nfor these networks and targets"
    below = f"{accuracy} (%)\nwhiskers: {confidence:.0%} {intervals}"
    figure = draw_panels(points, lines, models, methods, below, changes)
    return figure, pd.concat([points, curve_points])


def _pretrained_points(mri: pd.DataFrame) -> pd.DataFrame:
    """Points for the stars: a row per model, with its accuracy on the target before, and mRI 0."""
    of_models = mri.drop_duplicates("model")
    return pd.DataFrame(
        {
            "model": of_models["model"],
            "on_target": of_models["on_target_before"],
            "method": PRETRAINED,
            "mri": 0.0,
        }
    )


def _with_change_in_distribution(
    points: pd.DataFrame, in_distribution: pd.DataFrame
) -> pd.DataFrame:
    """Points with columns for the second panel, such as in_distribution; 0 if pretrained."""
    new_names = {
        "change": IN_DISTRIBUTION.column,
        "ci_low": IN_DISTRIBUTION.low,
        "ci_high": IN_DISTRIBUTION.high,
    }
    changes = in_distribution[["model", "method", *new_names]].rename(columns=new_names)
    with_change = points.merge(changes, on=["model", "method"], how="left")
    is_pretrained = with_change["method"] == PRETRAINED
    with_change.loc[is_pretrained, IN_DISTRIBUTION.column] = 0.0
    return with_change


def _lines_of_averages(
    points: pd.DataFrame, averages: Mapping[str, tuple[str, float]]
) -> list[pd.DataFrame]:
    """Lines to draw: from the pretrained model through averages, by alpha, to their parent.

    {"wise": ("ft", 0.5)} gives one table with alphas 0, 0.5 and 1, all with method `wise`.
    """
    averages_of_parents: dict[str, dict[str, float]] = {}
    for method, (parent, alpha) in averages.items():
        averages_of_parents.setdefault(parent, {})[method] = alpha
    lines = []
    for parent, alpha_of_average in averages_of_parents.items():
        # The first average gives the line its colour.
        first_average = next(iter(alpha_of_average))
        alpha_of_method = {PRETRAINED: 0, **alpha_of_average, parent: 1}
        alphas = points["method"].map(alpha_of_method)  # NaN for methods that are not on the line
        on_line = points.assign(alpha=alphas, method=first_average).dropna(subset="alpha")
        lines.append(on_line.sort_values("alpha"))
    return lines


def _texts_of_alphas(alphas: pd.Series) -> pd.Series:
    """Texts beside the points of a line of averages: `0.5`, nothing at its ends 0 and 1."""
    is_between_ends = alphas.between(0, 1, inclusive="neither")
    return alphas.map("{:g}".format).where(is_between_ends, "")


def _lines_of_rates(
    points: pd.DataFrame, rates: Sequence[Sequence[tuple[str, str]]]
) -> list[pd.DataFrame]:
    """Lines to draw: through the learning rates of a method, each rate beside its point."""
    lines = []
    for rates_of_method in rates:
        first_method, _ = rates_of_method[0]  # it gives the line its colour
        rate_of_method = dict(rates_of_method)
        on_line = points[points["method"].isin(rate_of_method)]
        place_on_line = on_line["method"].map(list(rate_of_method).index)
        on_line = on_line.assign(
            beside=on_line["method"].map(rate_of_method), method=first_method, style=":"
        )
        lines.append(on_line.iloc[place_on_line.argsort(kind="stable")])
    return lines


def draw_panels(
    points: pd.DataFrame,
    lines: pd.DataFrame,
    models: Labels,
    methods: Styles,
    below: str,
    changes: Sequence[Change] = (MRI,),
) -> MatplotlibFigure:
    """Draw a panel for each model with points and each change, a quantity such as mRI.

    A model's panels stand one below the other.

    Args:
        points: columns model, method, on_target with _low and _high, and the changes' columns.
        lines: columns model, method, on_target, the changes' columns, style (of the line, such as
            `-`) and beside, a text for the point or nothing; a line goes through the rows of a
            method and style in the given order.
        models: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        below: text below the panels.
    """
    shown_models = [model for model in models if model in set(points["model"])]
    columns = min(2, len(shown_models))
    rows_of_models = math.ceil(len(shown_models) / 2)
    rows = rows_of_models * len(changes)
    height_of_panel = 3.2 if len(changes) == 1 else 2.3
    size = (0.4 + 3.7 * columns, 1 + 0.07 * len(methods) + height_of_panel * rows)
    figure, panels = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=len(changes) == 1
    )
    for number, model in enumerate(shown_models):
        row_of_model, column = divmod(number, columns)
        first_row = row_of_model * len(changes)
        panels[first_row, column].set_title(models[model], loc="left")
        points_of_model = points[points["model"] == model]
        lines_of_model = lines[lines["model"] == model]
        for i, change in enumerate(changes):
            axes = panels[first_row + i, column]
            _draw_model(axes, points_of_model, lines_of_model, methods, change)
    if len(shown_models) % columns:  # the last place is empty
        for axes in panels[-len(changes) :, -1]:
            axes.axis("off")
    if len(changes) > 1:
        _label_changes(panels, changes)
    else:
        figure.supylabel(changes[0].label, fontsize=8)
    figure.supxlabel(below, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2 * columns)
    return figure


def _label_changes(panels: np.ndarray, changes: Sequence[Change]) -> None:
    """Label the vertical axes.

    Rows of panels show the changes in turn; panels of one change share their vertical axis.
    """
    for i, change in enumerate(changes):
        panels_of_change = panels[i :: len(changes)]
        for axes in panels_of_change.flat[1:]:
            axes.sharey(panels_of_change[0, 0])
        for axes in panels_of_change[:, 0]:
            axes.set_ylabel(change.label, fontsize=8)
        for axes in panels_of_change[:, 1:].flat:
            axes.tick_params(labelleft=False)
        panels_of_change[0, 0].autoscale_view()


def _draw_model(
    axes: Axes, points: pd.DataFrame, lines: pd.DataFrame, methods: Styles, change: Change
) -> None:
    """Draw a model's lines and points; fill distinguishes methods with equal marker and colour."""
    for (method, line_style), line in lines.groupby(["method", "style"], sort=False):
        colour = methods[str(method)]["colour"]
        _draw_line(axes, line.dropna(subset=change.column), colour, str(line_style), change)
    drawn_with_look: dict[tuple[str, str], int] = {}  # methods so far with this marker and colour
    for method, style in {PRETRAINED: ORIGIN, **methods}.items():
        look = (style["marker"], style["colour"])
        variant = drawn_with_look.get(look, 0)
        drawn_with_look[look] = variant + 1
        fill = FILLS[variant % len(FILLS)]
        size = 9 if method == PRETRAINED else 6
        _draw_points(axes, points[points["method"] == method], style, fill, size, change)
    axes.axhline(0, color=PALE, linewidth=1, zorder=1)
    axes.grid(True, axis="both")
    axes.xaxis.set_tick_params(labelbottom=True)  # there may be no panel below


def _draw_line(
    axes: Axes, line: pd.DataFrame, colour: str, line_style: str, change: Change
) -> None:
    """Draw a line through points of a method, with a few of their texts beside it."""
    heights = line[change.column]
    axes.plot(
        line["on_target"],
        heights,
        color=colour,
        linestyle=line_style,
        marker=".",
        markersize=4,
        linewidth=1.2,
        zorder=2,
    )
    # On the side away from the origin and the line.
    is_above = heights.sum() > 0
    rises = heights.diff() > 0
    with_sides = line.assign(is_left=rises == is_above, height=heights)
    with_text = with_sides[line["beside"] != ""]
    step = 1 + len(with_text) // MOST_TEXTS
    for row in with_text.iloc[::step].to_dict("records"):
        axes.annotate(
            row["beside"],
            (row["on_target"], row["height"]),
            fontsize=7.5,
            xytext=(-5 if row["is_left"] else 5, 3 if is_above else -3),
            textcoords="offset points",
            ha="right" if row["is_left"] else "left",
            va="bottom" if is_above else "top",
        )


def _draw_points(
    axes: Axes, points: pd.DataFrame, style: Style, fill: str, size: float, change: Change
) -> None:
    """Draw a method's points with whiskers.

    Whiskers are half transparent so that others remain visible.
    """
    colour = style["colour"]
    x = points["on_target"]
    y = points[change.column]
    axes.hlines(
        y, points["on_target_low"], points["on_target_high"], color=colour, linewidth=2, alpha=0.5
    )
    axes.vlines(x, points[change.low], points[change.high], color=colour, linewidth=2, alpha=0.5)
    axes.plot(
        x,
        y,
        style["marker"],
        color=colour,
        fillstyle=fill,
        label=style["label"],
        markersize=size,
        zorder=3,
    )
