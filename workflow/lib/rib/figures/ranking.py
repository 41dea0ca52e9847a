"""Methods ranked by mRI, one panel per model; letters and lines join tied methods."""

import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.transforms import ScaledTranslation

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.analysis.comparison import few_objects
from rib.base.rounding import fit_percent
from rib.figures import Drawn, Labels, Styles
from rib.figures._panels import name_rows

INK, TIE = "#252525", "#525252"
GAP = 0.16  # inches between letters
FINISHED_ONLY = True  # others have no rank


def draw(ranking: pd.DataFrame, *, models: Labels, methods: Styles, confidence: float) -> Drawn:
    """mRI of every method in percentage points, best on top, with its mean fit and its confidence intervals.

    Args:
        ranking: columns model, method, size, mri, ci_low, ci_high, seeds, seed_low, seed_high, rank_best, rank_worst,
            ties, fit, in display order; none for models without a finished method. Optional: objects.
    """
    drawn = [model for model in models if model in set(ranking["model"])]
    if not drawn:
        figure = plt.figure(figsize=(5.2, 1))
        figure.text(0.5, 0.6, "no method is ranked", ha="center")
        return figure, ranking
    lines = [int((ranking["model"] == model).sum()) for model in drawn]
    letters = max(len(_letters("".join(part["ties"]))) for _, part in ranking.groupby("model"))
    size = (5.8 + GAP * letters, 0.9 + sum(0.45 + 0.26 * count for count in lines))
    heights = [count + 0.6 for count in lines]
    figure, panels = plt.subplots(len(drawn), 1, figsize=size, height_ratios=heights, squeeze=False, sharex=True)
    for axes, model in zip(panels[:, 0], drawn, strict=True):
        rows = ranking[ranking["model"] == model].reset_index(drop=True)
        for place, row in enumerate(rows.to_dict("records")):
            _draw_method(axes, place, row, methods[row["method"]])
        axes.axvline(0, color=INK, linewidth=1)
        name_rows(axes, [_named(row, methods) for row in rows.to_dict("records")])
        axes.set_title(models[model], loc="left")
        _draw_ties(axes, rows["ties"].tolist())
    n = int(ranking["seeds"].max())
    over = "objects and seeds" if n >= FEWEST_SEEDS else "objects, for these trained networks"
    several = f"thick: {confidence:.0%} confidence intervals over {over}; thin: over {n} seeds alone"
    one = f"{confidence:.0%} confidence intervals over objects\none seed: another training may change the order"
    whiskers = several if n > 1 else one
    notes = ("mRI (percentage points)", whiskers, "methods that share a letter tie", few_objects(ranking))
    figure.supxlabel("\n".join(filter(None, notes)), fontsize=8)
    return figure, ranking


def _named(row: Mapping, methods: Styles) -> str:
    return methods[row["method"]]["label"] + (f" (fit {fit} %)" if (fit := fit_percent(row["fit"])) else "")


def _draw_method(axes, place: int, row: Mapping, style: Mapping) -> None:
    marker, colour = style["marker"], style["colour"]
    axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
    if not np.isnan(row["seed_low"]):
        middle, half = (row["seed_low"] + row["seed_high"]) / 2, (row["seed_high"] - row["seed_low"]) / 2
        axes.errorbar(middle, place, xerr=half, fmt="none", ecolor=INK, elinewidth=0.9, zorder=3)
    edges = {"markeredgecolor": INK, "markeredgewidth": 0.6}
    axes.plot(row["mri"], place, marker=marker, color=colour, markersize=7, zorder=4, **edges)


def _letters(text: str) -> list[str]:
    """Distinct letters in order, each with its optional number."""
    return list(dict.fromkeys(re.findall(r"\D\d*", text)))


def _draw_ties(axes, ties: list[str]) -> None:
    """Draw a column per letter right of the panel: the letter at each of its methods, joined by a line."""
    columns = sorted(_letters("".join(ties)), key=lambda text: (len(text), text))
    line = {"color": TIE, "linewidth": 1.2, "clip_on": False, "zorder": 2}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for column, letter in enumerate(columns):
        # In inches from the panel's edge, since the layout makes room for them before the panel has its final width.
        at = axes.get_yaxis_transform() + ScaledTranslation(GAP * (column + 1), 0, axes.figure.dpi_scale_trans)
        places = [place for place, text in enumerate(ties) if letter in _letters(text)]
        if len(places) > 1:
            axes.plot([1, 1], [places[0], places[-1]], transform=at, **line)
        for place in places:
            axes.text(1, place, letter, transform=at, ha="center", va="center", fontsize=8, bbox=box)
