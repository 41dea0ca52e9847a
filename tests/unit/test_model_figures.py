"""Figures of compared models show the numbers of their table: read back from the drawn objects."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from rib.analyses.models import figure as models

STYLES = {
    name: {"label": f"Model {name.upper()}", "colour": colour, "marker": marker}
    for name, colour, marker in (
        ("k", "#0072b2", "o"),
        ("l", "#d55e00", "s"),
        ("m", "#009e73", "D"),
        ("n", "#000000", "^"),
    )
}
SETTINGS = {"method": "ft", "method_label": "FT", "models": STYLES, "confidence": 0.95}
COLUMNS = [
    "method",
    "model",
    "ood_before",
    "before_low",
    "before_high",
    "ood_after",
    "after_low",
    "after_high",
]


def table(ranks=((2, 1), (1, 3), (3, 2))):
    lines = [
        ("ft", "k", 30, 28, 33, 50, 49, 52),
        ("ft", "l", 40, 37, 41, 20, 19, 22),
        ("ft", "m", 25, 24, 26, 45, 44, 47),
    ]
    ranked = pd.DataFrame(ranks, columns=["rank_before", "rank_after"])
    found = pd.concat([pd.DataFrame(lines, columns=COLUMNS), ranked], axis=1)
    found[["tau", "tau_p"]] = (-0.2, 0.4512)
    return pd.concat([found, found.assign(method="lwf", ood_after=99.0)])


def test_models_show_accuracies_with_whiskers_beside_ranks_that_cross():
    figure, shown = models.draw_models(table(), **SETTINGS)
    left, right, named = figure.axes
    points = [line for line in left.lines if line.get_marker() in "osD"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [
        (30, 50),
        (40, 20),
        (25, 45),
    ]
    whiskers = [
        line.get_xydata().tolist() for line in left.lines if line.get_label() != "unchanged"
    ][:2]
    assert whiskers == [[[28, 50], [33, 50]], [[30, 49], [30, 52]]]
    (same,) = (line for line in left.lines if line.get_label() == "unchanged")
    assert (same.get_xdata() == same.get_ydata()).all()
    assert left.get_xlim() == left.get_ylim()
    slopes = [line.get_ydata().tolist() for line in right.lines]
    assert slopes == [[2, 1], [1, 3], [3, 2]] and right.yaxis_inverted() and named.yaxis_inverted()
    assert [to_hex(line.get_color()) for line in right.lines] == [
        STYLES[name]["colour"] for name in "klm"
    ]
    assert dict(
        zip(named.get_yticks(), [text.get_text() for text in named.get_yticklabels()], strict=True)
    ) == {
        1: "1  Model K",
        3: "3  Model L",
        2: "2  Model M",
    }
    for number in ("\N{MINUS SIGN}0.20", "0.45"):
        assert number in figure.get_supxlabel()
    assert len(shown) == 3


def test_models_without_a_rank_stand_below_without_a_line():
    figure, _ = models.draw_models(table(ranks=((np.nan, np.nan), (1, 2), (2, 1))), **SETTINGS)
    _, right, named = figure.axes
    assert [(line.get_ydata().tolist(), line.get_linestyle()) for line in right.lines] == [
        ([3, 3], "None"),
        ([1, 2], "-"),
        ([2, 1], "-"),
    ]
    assert "\N{EN DASH}  Model K" in [text.get_text() for text in named.get_yticklabels()]


def test_models_of_equal_rank_are_drawn_one_below_the_other():
    figure, _ = models.draw_models(table(ranks=((1, 1), (1, 1), (3, 3))), **SETTINGS)
    _, right, named = figure.axes
    assert [line.get_ydata().tolist() for line in right.lines] == [[1, 1], [2, 2], [3, 3]]
    assert [text.get_text()[0] for text in named.get_yticklabels()] == ["1", "1", "3"]
