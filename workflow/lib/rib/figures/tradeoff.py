"""Accuracy on the target against mRI, one panel per model, with the pretrained model as origin."""

import textwrap
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.config.run import ALL, PRETRAINED
from rib.figures._panels import model_panels

ORIGIN = {"label": "pretrained", "colour": "#252525", "marker": "*"}
PLACES, APART = (
    5,
    0.016,
)  # where points with overlapping whiskers are drawn: number, and distance as a share of the axis
WHISKERS = [("xerr", "on_target", "on_target"), ("yerr", "mri", "ci")]  # value, and how its limits' names begin
ENTRY = 2.0  # width of a legend entry in inches


def draw(
    tradeoff: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, Mapping],
    averages: Mapping[str, Mapping],
    protocol: str,
    size: str,
    confidence: float,
    below: str = "",
) -> tuple[Figure, pd.DataFrame]:
    """A point per method with both confidence intervals, and lines through averages of weights by alpha.

    Args:
        tradeoff: columns model, method, alpha, seeds, on_target, mri and the confidence limits of both.
        averages: by method, the methods that average its weights with the pretrained ones, with their alphas; None for
            a method with a state per alpha, whose states make the line if there is one.
        protocol, size: what the methods were trained on.
        below: start of the note below.
    """
    shown = tradeoff.dropna(subset="on_target").sort_values(["model", "mri"], ascending=False)
    rows = shown.assign(x=_places(shown[shown["alpha"].isna()]).reindex(shown.index).fillna(shown["on_target"]))
    figure, panels = model_panels(rows["model"], models, 2, (3.7, 3.2), (0.4, 1 + 0.07 * len(methods)))
    for model, axes in panels.items():
        own = rows[rows["model"] == model]
        for parent, alphas in averages.items():
            _draw_line(axes, own, parent, alphas, methods)
        for name, style in {PRETRAINED: ORIGIN, **methods}.items():
            _draw_points(axes, own[(own["method"] == name) & own["alpha"].isna()], style)
        axes.axhline(0, color="#8c8c8c", linewidth=1, zorder=1)
    label = "fit: accuracy on the training images" if size == ALL else "accuracy on the target, partly trained on"
    label = "test accuracy on the target" if protocol == "held_out" else label
    resampled = (
        "objects and seeds, for these" if shown["seeds"].max() >= FEWEST_SEEDS else "objects, for these networks and"
    )
    note = f"{below}whiskers: {confidence:.0%} confidence intervals over {resampled} targets"
    note = textwrap.fill(note, int(15 * figure.get_figwidth()))
    figure.supxlabel(f"{label} (%)\n{note}", fontsize=8)
    figure.supylabel("mRI (percentage points)", fontsize=8)
    keys = {text: key for axes in panels.values() for key, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(keys.values(), keys, loc="outside upper center", ncols=int(figure.get_figwidth() / ENTRY))
    return figure, shown


def _places(points: pd.DataFrame) -> pd.Series:
    """Accuracy at which each point is drawn: a little lower than its own if its whisker would hide that of one above it."""
    drawn, step = [], APART * (points["on_target"].max() - points["on_target"].min())
    for row in points.itertuples():
        hidden = [x for model, low, x in drawn if model == row.model and low <= row.ci_high]
        places = [row.on_target - step * place for place in range(PLACES)]
        free = [x for x in places if all(abs(x - other) > 0.9 * step for other in hidden)]
        drawn.append((row.model, row.ci_low, (free or places)[0]))
    return pd.Series([x for *_, x in drawn], points.index)


def _draw_line(axes: Axes, own: pd.DataFrame, parent: str, alphas: Mapping, methods: Mapping[str, Mapping]) -> None:
    """Draw the line from the pretrained model (alpha 0) to the parent (1), with a few alphas beside it."""
    curve = next((name for name, alpha in alphas.items() if alpha is None), None)
    known = {PRETRAINED: 0.0, curve: 1.0} if curve else {PRETRAINED: 0.0, **alphas, parent: 1.0}
    path = own[own["method"].isin(list(known))]
    path = path.fillna({"alpha": path["method"].map(known)}).dropna(subset="alpha").sort_values("alpha", kind="stable")
    colour = methods[curve or next(iter(alphas))]["colour"]
    axes.plot(path["x"], path["mri"], color=colour, marker=".", markersize=4, linewidth=1.2, zorder=2)
    inner = path[path["alpha"].between(0, 1, inclusive="neither") & (parent != curve)]
    side, up = ("bottom", 3) if path["mri"].sum() > 0 else ("top", -3)  # away from the line
    for row in inner.iloc[:: 1 + len(inner) // 4].itertuples():
        beside = {"xytext": (-5, up), "textcoords": "offset points", "ha": "right", "va": side, "fontsize": 7.5}
        axes.annotate(f"{row.alpha:g}", (row.x, row.mri), **beside)


def _draw_points(axes: Axes, points: pd.DataFrame, style: Mapping) -> None:
    ends = {axis: [points[v] - points[f"{n}_low"], points[f"{n}_high"] - points[v]] for axis, v, n in WHISKERS}
    axes.errorbar(points["x"], points["mri"], **ends, fmt="none", ecolor=style["colour"], elinewidth=1, capsize=2)
    look = {"color": style["colour"], "label": style["label"], "markersize": 9 if style is ORIGIN else 6}
    axes.plot(points["x"], points["mri"], style["marker"], **look, zorder=3)
