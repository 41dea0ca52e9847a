"""Differences of methods from a reference in mRI, best on top, one panel per model.

Letters and lines join methods that are not told apart.
"""

import re
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation, Transform

from rib.analysis.bootstrap import FEWEST_SEEDS
from rib.analysis.comparison import few_objects
from rib.base.rounding import MINUS, fit_percent, percent, points
from rib.config.run import PRETRAINED
from rib.figures import Drawn, Labels, Styles
from rib.figures._panels import name_rows

INK, PALE = "#252525", "#8c8c8c"
# Inches, right of a panel: to the numbers of mRI, their width, and between letters.
MARGIN, NUMBERS, GAP = 0.12, 1.3, 0.15
FINISHED_ONLY = True  # others have no rank


def draw(ranking: pd.DataFrame, *, models: Labels, methods: Styles, confidence: float) -> Drawn:
    """Difference of mRI from the reference (percentage points), with simultaneous intervals.

    Right of the panel are mRI with its own interval, and letters of what is not told apart.

    Args:
        ranking: columns model, method, size, mri, ci_low, ci_high, seeds, reference, difference,
            diff_low, diff_high, letters, smallest_difference, fit, in display order; no rows of
            models without a finished method. Optional: objects.
    """
    drawn = [model for model in models if model in set(ranking["model"])]
    if not drawn:
        figure = plt.figure(figsize=(5.2, 1))
        figure.text(0.5, 0.6, "no method is ranked", ha="center")
        return figure, ranking
    by_model = ranking.groupby("model")
    panels_of = {model: by_model.get_group(model).reset_index(drop=True) for model in drawn}
    letters = max(len(_letters("".join(rows["letters"]))) for rows in panels_of.values())
    width = 5.8 + MARGIN + NUMBERS + GAP * letters
    height = 1.1 + sum(0.6 + 0.26 * len(rows) for rows in panels_of.values())
    figure, panels = plt.subplots(
        len(drawn),
        1,
        figsize=(width, height),
        height_ratios=[len(rows) + 0.6 for rows in panels_of.values()],
        squeeze=False,
    )
    for axes, (model, rows) in zip(panels[:, 0], panels_of.items(), strict=True):
        _draw_panel(axes, rows, models[model], methods)
    notes = [*_notes(ranking, confidence), *_smallest_differences(panels_of, models)]
    figure.supxlabel("\n".join(notes), fontsize=8)
    return figure, ranking


def _notes(ranking: pd.DataFrame, confidence: float) -> list[str]:
    """What the picture says, a line each."""
    seeds = int(ranking["seeds"].max())
    over = "objects and seeds" if seeds >= FEWEST_SEEDS else "objects, for these trained networks"
    notes = [
        f"bars: {confidence:.0%} confidence intervals over {over},",
        "which hold for all methods of a panel together; filled: the interval is off 0;",
        "dotted: the pretrained model; mRI: each with an interval of its own",
    ]
    if seeds == 1:
        notes.append("one seed: another training may change the order")
    return [*notes, *filter(None, [few_objects(ranking)])]


def _smallest_differences(panels_of: Mapping[str, pd.DataFrame], models: Labels) -> list[str]:
    """How far apart two methods of a model have to be, a line each; none where there is no pair."""
    notes = []
    for model, rows in panels_of.items():
        smallest = rows.loc[0, "smallest_difference"]
        if not np.isnan(smallest):
            apart = f"two methods {percent(smallest)} points apart"
            notes.append(f"{models[model]}: {apart} are told apart in about 3 of 4 cases")
    return notes


def _draw_panel(axes: Axes, rows: pd.DataFrame, model: str, methods: Styles) -> None:
    reference = rows.loc[0, "reference"]
    for place, row in enumerate(rows.to_dict("records")):
        _draw_method(axes, place, row, methods[row["method"]])
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    if reference != PRETRAINED:
        of_pretrained = -rows.set_index("method").loc[reference, "mri"]
        axes.axvline(of_pretrained, color=INK, linewidth=1, linestyle=":", zorder=1)
    name_rows(axes, [_named(row, methods) for row in rows.to_dict("records")])
    axes.set_title(model, loc="left")
    axes.set_xlabel(f"mRI minus that of {_name_of(reference, methods)} (percentage points)")
    _write_numbers(axes, rows)
    _draw_letters(axes, rows)


def _name_of(reference: str, methods: Styles) -> str:
    return "the pretrained model" if reference == PRETRAINED else methods[reference]["label"]


def _named(row: Mapping, methods: Styles) -> str:
    """A method's label, its fit if that is known, and a mark of the reference."""
    facts = [f"fit {fit} %"] if (fit := fit_percent(row["fit"])) else []
    if row["method"] == row["reference"]:
        facts.append("reference")
    return methods[row["method"]]["label"] + (f" ({', '.join(facts)})" if facts else "")


def _draw_method(axes: Axes, place: int, row: Mapping, style: Mapping) -> None:
    """A marker at the difference, filled if its interval is off 0, on a bar for the interval."""
    low, high, colour = row["diff_low"], row["diff_high"], style["colour"]
    if not np.isnan(low):  # the reference has none
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
    is_off_zero = low > 0 or high < 0
    inside = colour if is_off_zero else "white"
    edges = {"markeredgecolor": INK, "markeredgewidth": 0.8, "markerfacecolor": inside}
    axes.plot(row["difference"], place, marker=style["marker"], markersize=6.5, zorder=4, **edges)


def _right_of(axes: Axes, inches: float) -> Transform:
    """Rows of the panel, a number of inches right of it.

    In inches, since the layout makes room before the panel has its final width.
    """
    shift = ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
    return axes.get_yaxis_transform() + shift


def _write_numbers(axes: Axes, rows: pd.DataFrame) -> None:
    """mRI of each row with its interval, right of the panel."""
    at = _right_of(axes, MARGIN)
    axes.text(1, -0.7, "mRI", transform=at, ha="left", va="bottom", fontsize=8)
    for place, row in enumerate(rows.to_dict("records")):
        value, low, high = (
            points(row[key]).replace("-", MINUS) for key in ("mri", "ci_low", "ci_high")
        )
        text = f"{value} [{low}, {high}]"
        axes.text(1, place, text, transform=at, ha="left", va="center", fontsize=7)


def _letters(text: str) -> list[str]:
    """Distinct letters in order, each with its optional number."""
    return list(dict.fromkeys(re.findall(r"\D\d*", text)))


def _draw_letters(axes: Axes, rows: pd.DataFrame) -> None:
    """A column per letter right of the numbers: the letter at each of its methods, with a line."""
    of_rows = [_letters(text) for text in rows["letters"]]
    shown = {letter for letters in of_rows for letter in letters}
    columns = sorted(shown, key=lambda text: (len(text), text))
    start = MARGIN + NUMBERS
    heading = {"transform": _right_of(axes, start), "ha": "left", "va": "bottom", "fontsize": 8}
    axes.text(1, -0.7, "not told apart", **heading)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for column, letter in enumerate(columns):
        at = _right_of(axes, start + GAP * (column + 0.5))
        places = [place for place, letters in enumerate(of_rows) if letter in letters]
        if len(places) > 1:
            ends = [places[0], places[-1]]
            axes.plot([1, 1], ends, transform=at, color=PALE, linewidth=1, clip_on=False, zorder=2)
        for place in places:
            looks = {"ha": "center", "va": "center", "fontsize": 7, "color": PALE}
            axes.text(1, place, letter, transform=at, bbox=box, **looks)
