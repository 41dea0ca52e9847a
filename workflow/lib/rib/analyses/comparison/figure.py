"""Draws the figure `ranking`."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PlottedFigure
from matplotlib.transforms import ScaledTranslation, Transform

from rib.base.appearance import INK, PALE
from rib.base.rounding import MINUS, fit_percent, percent, points
from rib.figures import Drawn, Labels, Style, Styles
from rib.figures._panels import name_rows
from rib.schema.run import PRETRAINED
from rib.statistics.bootstrap import FEWEST_SEEDS
from rib.statistics.tests import few_objects

# In inches, right of a panel.
MARGIN = 0.12  # to the numbers of mRI
NUMBERS_WIDTH = 1.3
LETTER_WIDTH = 0.15
MAX_LETTERS = 26  # the eye can't follow more, so more are not drawn


def draw_ranking(
    ranking: pd.DataFrame, *, models: Labels, methods: Styles, confidence: float
) -> Drawn:
    """Draw each method's mRI minus the reference method's, best on top, in percentage points.

    mRI is the mean change of accuracy on other datasets. Intervals are simultaneous. Right of the
    panel are mRI and letters: methods that share a letter don't differ clearly.

    Args:
        ranking: columns model, method, size, mri, ci_low, ci_high, seeds, fit, letters,
            smallest_difference, reference, difference, diff_low, diff_high, in display order;
            models may have no rows. Without a column objects (their number), no note warns that
            they are few.
        models: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    ranked_models = [model for model in models if model in set(ranking["model"])]
    if not ranked_models:
        figure = plt.figure(figsize=(5.2, 1))
        figure.text(0.5, 0.6, "no method is ranked", ha="center")
        return figure, ranking
    rows_of_models = {
        model: ranking[ranking["model"] == model].reset_index(drop=True) for model in ranked_models
    }
    figure, panels = _panels(list(rows_of_models.values()))
    for axes, (model, rows) in zip(panels, rows_of_models.items(), strict=True):
        _draw_panel(axes, rows, models[model], methods)
    notes = _notes(ranking, confidence)
    for model, rows in rows_of_models.items():
        notes += _smallest_difference(rows, models[model])
        if not _letters_to_draw(rows):
            notes.append(f"{models[model]}: inconclusive pairs are in ranking.csv, by letters")
    figure.supxlabel("\n".join(notes), fontsize=8)
    return figure, ranking


def _panels(rows_of_panels: Sequence[pd.DataFrame]) -> tuple[PlottedFigure, np.ndarray]:
    """A figure and its panels (models,), one below the other, with room for rows and letters."""
    most_letters = max(len(_letters_to_draw(rows)) for rows in rows_of_panels)
    width = 5.8 + MARGIN + NUMBERS_WIDTH + LETTER_WIDTH * most_letters
    height = 1.1 + sum(0.6 + 0.26 * len(rows) for rows in rows_of_panels)
    figure, panels = plt.subplots(
        len(rows_of_panels),
        1,
        figsize=(width, height),
        height_ratios=[len(rows) + 0.6 for rows in rows_of_panels],
        squeeze=False,
    )
    return figure, panels[:, 0]


def _notes(ranking: pd.DataFrame, confidence: float) -> list[str]:
    """Lines below the figure: what bars and markers mean; warnings about few seeds or objects."""
    seeds = int(ranking["seeds"].max())
    resampled = "objects, for these trained networks"
    if seeds >= FEWEST_SEEDS:
        resampled = "objects and seeds"
    notes = [
        f"bars: {confidence:.0%} confidence intervals over {resampled},",
        "which hold for all methods of a panel together; filled: the interval excludes 0;",
        "dotted: the pretrained model; mRI: each with an interval of its own",
    ]
    if seeds == 1:
        notes.append("one seed: another training may change the order")
    warning = few_objects(ranking)
    if warning:
        notes.append(warning)
    return notes


def _smallest_difference(rows: pd.DataFrame, model_label: str) -> list[str]:
    """Note `Net: two methods 1.2 points apart differ clearly in about 3 of 4 cases`, if known."""
    smallest = rows["smallest_difference"].iloc[0]
    if math.isnan(smallest):
        return []
    apart = f"two methods {percent(smallest)} points apart"
    return [f"{model_label}: {apart} differ clearly in about 3 of 4 cases"]


def _draw_panel(axes: Axes, rows: pd.DataFrame, model_label: str, methods: Styles) -> None:
    """Draw a model's methods, lines at 0 and at the pretrained model, numbers and letters."""
    reference = rows["reference"].iloc[0]
    for i, row in enumerate(rows.to_dict("records")):
        _draw_method(axes, i, row, methods[row["method"]])
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    reference_label = "the pretrained model"
    if reference != PRETRAINED:
        reference_label = methods[reference]["label"]
        mri_of_reference = rows.loc[rows["method"] == reference, "mri"].iloc[0]
        of_pretrained = -mri_of_reference  # the pretrained model has an mRI of 0
        axes.axvline(of_pretrained, color=INK, linewidth=1, linestyle=":", zorder=1)
    name_rows(axes, [_row_label(row, methods) for row in rows.to_dict("records")])
    axes.set_title(model_label, loc="left")
    axes.set_xlabel(f"mRI minus that of {reference_label} (percentage points)")
    _write_numbers(axes, rows)
    _draw_letters(axes, rows)


def _row_label(row: Mapping[Hashable, Any], methods: Styles) -> str:
    """Name of a row, `Linear probing (fit 98.7 %, reference)`; fit is training accuracy."""
    label = methods[row["method"]]["label"]
    fit = fit_percent(row["fit"])
    facts = []
    if fit:
        facts.append(f"fit {fit} %")
    if row["method"] == row["reference"]:
        facts.append("reference")
    if not facts:
        return label
    return f"{label} ({', '.join(facts)})"


def _draw_method(axes: Axes, y: int, row: Mapping[Hashable, Any], style: Style) -> None:
    """Draw a method's difference and interval; the marker is filled if the interval excludes 0."""
    low = row["diff_low"]
    high = row["diff_high"]
    colour = style["colour"]
    if not math.isnan(low):  # the reference has no interval
        axes.plot([low, high], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
    is_off_zero = low > 0 or high < 0
    axes.plot(
        row["difference"],
        y,
        marker=style["marker"],
        markersize=6.5,
        zorder=4,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        markerfacecolor=colour if is_off_zero else "white",
    )


def _right_of(axes: Axes, inches: float) -> Transform:
    """Coordinates for texts beside a panel: x = 1 is `inches` right of its edge, y is the row."""
    # In inches, since the layout makes room for texts before the panel has its final width.
    shift = ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
    # Here x = 1 is the right edge of the panel, and y is in data units.
    rows_of_panel = axes.get_yaxis_transform()
    return rows_of_panel + shift


def _write_numbers(axes: Axes, rows: pd.DataFrame) -> None:
    """Write each row's mRI with its interval, `+1.2 [+0.3, +2.1]`, right of the panel."""
    coordinates = _right_of(axes, MARGIN)
    axes.text(1, -0.7, "mRI", transform=coordinates, ha="left", va="bottom", fontsize=8)
    for y, row in enumerate(rows.to_dict("records")):
        interval = f"{_signed(row['ci_low'])}, {_signed(row['ci_high'])}"
        text = f"{_signed(row['mri'])} [{interval}]"
        axes.text(1, y, text, transform=coordinates, ha="left", va="center", fontsize=7)


def _signed(change: float) -> str:
    """`+1.2` for 1.2; a minus sign is the typographic one."""
    return points(change).replace("-", MINUS)


def _split_letters(text: str) -> list[str]:
    """Letters of one method, ["a", "b", "a1"] for `aba1`: after z come a1, b1, ..."""
    return re.findall(r"\D\d*", text)


def _letters_to_draw(rows: pd.DataFrame) -> list[str]:
    """All letters of the methods, ["a", "b", "c"] for `ab` and `bc`; [] if too many for the eye."""
    distinct_letters = set()
    for text in rows["letters"]:
        distinct_letters.update(_split_letters(text))
    if len(distinct_letters) > MAX_LETTERS:
        return []
    return sorted(distinct_letters, key=lambda letter: (len(letter), letter))


def _draw_letters(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a column per letter; its line joins methods that don't differ clearly."""
    columns = _letters_to_draw(rows)
    if not columns:
        return
    letters_of_rows = [_split_letters(text) for text in rows["letters"]]
    left_edge = MARGIN + NUMBERS_WIDTH
    axes.text(
        1,
        -0.7,  # above the first row
        "same letter:\ninconclusive",
        transform=_right_of(axes, left_edge),
        ha="left",
        va="bottom",
        fontsize=8,
    )
    for column, letter in enumerate(columns):
        middle_of_column = left_edge + LETTER_WIDTH * (column + 0.5)
        coordinates = _right_of(axes, middle_of_column)
        rows_with_letter = [y for y, letters in enumerate(letters_of_rows) if letter in letters]
        _draw_column(axes, letter, rows_with_letter, coordinates)


def _draw_column(axes: Axes, letter: str, rows: Sequence[int], coordinates: Transform) -> None:
    """Write a letter beside its methods, joined by a line."""
    if len(rows) > 1:
        axes.plot(
            [1, 1],
            [rows[0], rows[-1]],
            transform=coordinates,
            color=PALE,
            linewidth=1,
            clip_on=False,
            zorder=2,
        )
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for y in rows:
        axes.text(
            1,
            y,
            letter,
            transform=coordinates,
            bbox=background,
            ha="center",
            va="center",
            fontsize=7,
            color=PALE,
        )
