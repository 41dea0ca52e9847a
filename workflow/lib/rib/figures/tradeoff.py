"""Accuracy on the target against mRI, one panel per model, with the pretrained model as origin."""

from collections import Counter
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.config.run import PRETRAINED
from rib.figures import Drawn, Labels, Styles

ORIGIN = {"label": "pretrained", "colour": "#252525", "marker": "*"}
FILLS = [
    "full",
    "none",
    "left",
    "bottom",
    "right",
    "top",
]  # of variants of a method, which share colour and marker
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


def draw(
    mri: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    averages: Mapping[str, tuple[str, float]],
    accuracy: str,
    confidence: float,
) -> Drawn:
    """A point per method with both confidence intervals, and lines through averages of weights by alpha.

    Args:
        mri: columns model, method, seeds, on_target, on_target_before, mri, and the confidence limits of both.
        curves: columns model, method, alpha, downstream, ri, of which means are drawn.
        averages: parent and alpha of methods that average the pretrained weights with a parent's; a line joins them.
        accuracy: what accuracy on the target is.
    """
    before = (
        mri.drop_duplicates("model")
        .drop(columns="on_target")
        .rename(columns={"on_target_before": "on_target"})
    )
    before = before[["model", "on_target"]].assign(method=PRETRAINED, mri=0.0)
    points = pd.concat([before, mri]).reindex(columns=COLUMNS)
    names = {"downstream": "on_target", "ri": "mri"}
    means = (
        curves.groupby(["model", "method", "alpha"])[list(names)]
        .mean()
        .reset_index()
        .rename(columns=names)
    )
    lines = [means]
    for parent in dict.fromkeys(parent for parent, _ in averages.values()):
        alphas = {name: alpha for name, (own, alpha) in averages.items() if own == parent}
        alpha = points["method"].map({PRETRAINED: 0, **alphas, parent: 1})
        lines.append(
            points.assign(alpha=alpha, method=next(iter(alphas)))
            .dropna(subset="alpha")
            .sort_values("alpha")
        )
    over, fixed = (
        ("objects and seeds", "")
        if mri["seeds"].max() >= FEWEST_SEEDS
        else ("objects", "networks and ")
    )
    below = f"{accuracy} (%)\nwhiskers: {confidence:.0%} confidence intervals over {over},\nfor these {fixed}targets"
    return draw_panels(points, pd.concat(lines), models, methods, below), pd.concat([points, means])


def draw_panels(
    points: pd.DataFrame, lines: pd.DataFrame, models: Labels, methods: Styles, below: str
) -> Figure:
    """Panels with points (columns COLUMNS) and with lines through model, method, alpha, on_target, mri in the given order."""
    models = {name: label for name, label in models.items() if name in set(points["model"])}
    rows, columns = -(-len(models) // 2), min(2, len(models))
    size = (0.4 + 3.7 * columns, 1 + 0.07 * len(methods) + 3.2 * rows)
    figure, panels = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True
    )
    for axes in panels.flat[len(models) :]:
        axes.axis("off")
    for axes, name in zip(panels.flat, models, strict=False):
        for method, line in lines[lines["model"] == name].groupby("method", sort=False):
            _draw_line(axes, line, methods[method]["colour"])
        seen: Counter = Counter()
        for method, style in {PRETRAINED: ORIGIN, **methods}.items():
            seen[look := (style["marker"], style["colour"])] += 1
            own, fill = points[points["method"] == method], FILLS[(seen[look] - 1) % len(FILLS)]
            _draw_points(axes, own[own["model"] == name], style, fill)
        axes.axhline(0, color="#8c8c8c", linewidth=1, zorder=1)
        axes.set_title(models[name], loc="left")
        axes.grid(True, axis="both")
        axes.xaxis.set_tick_params(labelbottom=True)  # the panel below may be missing
    figure.supxlabel(below, fontsize=8)
    figure.supylabel("mRI (percentage points)", fontsize=8)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2 * columns
    )
    return figure


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str) -> None:
    """Draw a line, with a few of its alphas beside it."""
    axes.plot(
        line["on_target"],
        line["mri"],
        color=colour,
        marker=".",
        markersize=4,
        linewidth=1.2,
        zorder=2,
    )
    above, rises = line["mri"].sum() > 0, line["mri"].diff() > 0
    inner = line.assign(left=rises == above)[line["alpha"].between(0, 1, inclusive="neither")]
    for row in inner.iloc[:: 1 + len(inner) // 4].itertuples():
        sides = {
            "ha": "right" if row.left else "left",
            "va": "bottom" if above else "top",
        }  # away from the line
        beside = {
            "xytext": (-5 if row.left else 5, 3 if above else -3),
            "textcoords": "offset points",
            **sides,
        }
        axes.annotate(f"{row.alpha:g}", (row.on_target, row.mri), fontsize=7.5, **beside)


def _draw_points(axes: Axes, points: pd.DataFrame, style: Mapping, fill: str) -> None:
    """Draw points with whiskers that let others shine through."""
    colour, x, y = style["colour"], points["on_target"], points["mri"]
    axes.hlines(
        y, points["on_target_low"], points["on_target_high"], color=colour, linewidth=2, alpha=0.5
    )
    axes.vlines(x, points["ci_low"], points["ci_high"], color=colour, linewidth=2, alpha=0.5)
    size = 9 if style is ORIGIN else 6
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
