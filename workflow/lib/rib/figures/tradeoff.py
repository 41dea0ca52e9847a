"""Accuracy on the target against mRI, one panel per model, with the pretrained model as origin."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.config.run import ALL, PRETRAINED
from rib.figures._panels import model_panels

ORIGIN = {"label": "pretrained", "colour": "#252525", "marker": "*"}
# Points within about CLOSE percent are drawn in PLACES places, each so large a share of the axis left of the last.
CLOSE, PLACES, APART = 2, 5, 0.016
WHISKERS = [("xerr", "on_target", "on_target"), ("yerr", "mri", "ci")]  # value, and how its limits' names begin
ENTRY = 2.2  # width of a legend entry in inches


def draw(
    tradeoff: pd.DataFrame,
    *,
    models: Mapping[str, str],
    methods: Mapping[str, Mapping],
    averages: Mapping[str, Mapping],
    protocol: str,
    size: str,
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """A point per method with both confidence intervals, and lines through averages of weights by alpha.

    Args:
        tradeoff: columns model, method, alpha, on_target, mri and their confidence limits.
        averages: by method, the methods that average its weights with the pretrained ones, with their alphas; None for
            a method with a state per alpha, whose states make the line if there is one.
        protocol, size: what the methods were trained on.
    """
    shown = tradeoff.dropna(subset="on_target").sort_values(["model", "mri"], ascending=False)
    points = shown[~shown["alpha"].between(0, 1, inclusive="left")]
    place = points.groupby(["model", (points["on_target"] / CLOSE).round()]).cumcount() % PLACES
    step = APART * (shown["on_target"].max() - shown["on_target"].min())
    rows = shown.assign(x=shown["on_target"] - step * place.reindex(shown.index, fill_value=0))
    figure, panels = model_panels(rows["model"], models, 2, (3.7, 3.2), (0.4, 1.5))
    for model, axes in panels.items():
        own = rows[rows["model"] == model]
        for parent, alphas in averages.items():
            _draw_line(axes, own, parent, alphas, methods)
        for name, style in {PRETRAINED: ORIGIN, **methods}.items():
            _draw_points(axes, own.loc[own.index.intersection(points.index)].query("method == @name"), style)
        axes.axhline(0, color="#8c8c8c", linewidth=1, zorder=1)
    label = "fit: accuracy on the training images" if size == ALL else "accuracy on the target, partly trained on"
    label = "test accuracy on the target" if protocol == "held_out" else label
    note = f"whiskers: {confidence:.0%} confidence intervals over objects; targets and trained networks are fixed"
    figure.supxlabel(f"{label} (%)\n{note}", fontsize=8)
    figure.supylabel("mRI (percentage points)", fontsize=8)
    keys = {text: key for axes in panels.values() for key, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(keys.values(), keys, loc="outside upper center", ncols=int(figure.get_figwidth() / ENTRY))
    return figure, shown


def _draw_line(axes: Axes, own: pd.DataFrame, parent: str, alphas: Mapping, methods: Mapping[str, Mapping]) -> None:
    """Draw the line from the pretrained model (alpha 0) to the parent (1), with a few alphas beside it."""
    curve = next((name for name, alpha in alphas.items() if alpha is None), None)
    known = own["method"].map({PRETRAINED: 0.0} if curve else {PRETRAINED: 0.0, **alphas, parent: 1.0})
    path = own.assign(alpha=own["alpha"].where(own["method"] == curve, known)).dropna(subset="alpha")
    path, colour = path.sort_values("alpha"), methods[curve or next(iter(alphas))]["colour"]
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
