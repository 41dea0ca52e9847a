"""WiSE-FT curve: accuracy on the target against mean OOD accuracy, from alpha = 0 (pretrained) to 1 (fine-tuned).

Source: Wortsman et al. 2022 (arXiv 2109.01903), figure 1.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rib.figures._panels import model_panels

# Okabe and Ito's colours without yellow, which is too light for lines, and two of Tol's.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#882255", "#999933"]
MARKERS = "osD^vP*Xh"
MARKED = {0.0: "white", 0.5: "#bdbdbd", 1.0: None}  # marker fill by alpha; None is the line's colour
INK = "#252525"
ACROSS = 2  # maximum number of panel columns


def draw(
    curves: pd.DataFrame,
    *,
    method: str,
    method_label: str,
    models: Mapping[str, str],
    targets: Mapping[str, str],
    confidence: float,
) -> tuple[Figure, pd.DataFrame]:
    """One panel per model and one line per target, in percent, with confidence intervals at marked alphas.

    Args:
        curves: columns model, method, target, seed, alpha, downstream, ood, ood_low, ood_high; seeds are averaged.
    """
    numbers = ["downstream", "ood", "ood_low", "ood_high"]
    shown = curves[(curves["method"] == method) & curves["downstream"].notna()]
    shown = shown.groupby(["model", "target", "alpha"])[numbers].mean().reset_index()
    figure, panels = model_panels(shown["model"], models, ACROSS, (3.9, 3.3), (0.4, 0.7))
    styles = dict(zip(targets, itertools.cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    ends: dict[str, dict[str, pd.Series]] = {model: {} for model in panels}
    for model, axes in panels.items():
        for target, (colour, marker) in styles.items():
            rows = shown[(shown["model"] == model) & (shown["target"] == target)]
            if len(rows):
                _draw_line(axes, rows, colour, marker)
                ends[model][target] = rows.iloc[-1]
    for model, axes in panels.items():  # after the limits of the shared axes are final
        _name_lines(axes, ends[model], targets, styles)
    figure.supxlabel("accuracy on the target (%)", fontsize=9)
    figure.supylabel(f"mean OOD accuracy (%; {confidence:.0%} confidence intervals)", fontsize=9)
    key = {"color": INK, "marker": "o", "linewidth": 0}
    names = {0.0: " (pretrained)", 1.0: " (fine-tuned)"}
    keys = [
        Line2D([], [], **key, markerfacecolor=fill or INK, label=rf"$\alpha$ = {alpha:g}{names.get(alpha, '')}")
        for alpha, fill in MARKED.items()
    ]
    title = f"{method_label}; one line per target"
    figure.legend(handles=keys, loc="outside upper center", ncols=3, title=title, title_fontsize=8)
    return figure, shown


def _draw_line(axes, rows: pd.DataFrame, colour: str, marker: str) -> None:
    axes.plot(rows["downstream"], rows["ood"], color=colour, linewidth=1.4)
    for alpha, fill in MARKED.items():
        for row in rows[np.isclose(rows["alpha"], alpha)].to_dict("records"):
            middle, half = (row["ood_high"] + row["ood_low"]) / 2, (row["ood_high"] - row["ood_low"]) / 2
            axes.errorbar(row["downstream"], middle, yerr=half, fmt="none", ecolor=colour, elinewidth=0.7, capsize=2)
            face = fill or colour
            axes.plot(row["downstream"], row["ood"], marker, color=colour, markersize=6, markerfacecolor=face, zorder=3)


def _name_lines(axes, ends: Mapping[str, pd.Series], targets: Mapping[str, str], styles: Mapping) -> None:
    """Target names right of the panel, at the height of each line's end, shifted to avoid overlaps."""
    low, high = axes.get_ylim()
    gap = 0.062 * (high - low)
    height = -np.inf
    for target, end in sorted(ends.items(), key=lambda entry: entry[1]["ood"]):
        height = max(end["ood"], height + gap)
        colour = styles[target][0]
        beside = {"xytext": (1.02, height), "textcoords": axes.get_yaxis_transform(), "annotation_clip": False}
        style = {"fontsize": 7.5, "color": colour, "va": "center"}
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.4, "linestyle": ":"}
        axes.annotate(targets[target], (end["downstream"], end["ood"]), arrowprops=line, **beside, **style)
