"""Numbers as people read them: one rounding, in every place that shows a number of a table."""

import random
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from rib.analyses.ri_matrix import figure as ri_matrix
from rib.base.files import write_table
from rib.base.rounding import MINUS, fit_percent, percent, points, whole_percent
from rib.report.page import FORMS


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-9.95, "-10.0"),
        (9.95, "+10.0"),
        (0.25, "+0.3"),
        (-0.25, "-0.3"),
        (1.05, "+1.1"),
        (-0.04, "+0.0"),
        (-0.05, "-0.1"),
        (0.0, "+0.0"),
        (-9.9499996, "-10.0"),  # -9.950000 in the table
        (12.3, "+12.3"),
        (float("nan"), "nan"),
    ],
)
def test_a_difference_is_rounded_half_away_from_zero_from_its_six_decimals(value, shown):
    assert points(value) == shown


def test_all_numbers_are_rounded_as_a_reader_rounds_the_text_of_the_table(tmp_path):
    rng = random.Random(0)
    values = [rng.randint(-10_000, 10_000) / 100 for _ in range(2000)] + [
        rng.uniform(-100, 100) for _ in range(2000)
    ]
    write_table(tmp_path / "table.csv", pd.DataFrame({"ri": values}))
    texts = (tmp_path / "table.csv").read_text().split()[1:]
    for value, text in zip(values, texts, strict=True):
        expected = Decimal(text).quantize(Decimal("0.1"), ROUND_HALF_UP)
        assert Decimal(points(value)) == Decimal(percent(value)) == expected
        assert points(float(text)) == points(value)


@pytest.mark.parametrize(
    ("fit", "shown"),
    [
        (98.67, "98.7"),
        (98.65, "98.7"),
        (99.94, "99.9"),
        (99.96, "99.9"),
        (99.9999, "99.9"),
        (100.0, "100.0"),
        (0, "0.0"),
    ],
)
def test_a_fit_is_rounded_too_but_only_all_images_are_100(fit, shown):
    assert fit_percent(fit) == shown


def test_an_unknown_fit_is_empty():
    assert fit_percent(float("nan")) == ""


def test_a_number_in_whole_percent_is_rounded_half_away_from_zero():
    assert [whole_percent(value) for value in (0.5, 1.5, 98.67, 99.5)] == ["1", "2", "99", "100"]


def test_page_and_figures_show_the_same_text():
    """The mean of -9.9 and -10.0. Python's format and pandas write it differently.

    tests/unit/test_summary.py and tests/unit/test_views.py have the other places.
    """
    # given
    value, low, high, fit = -9.95, -10.25, -9.65, 98.67
    run = {"model": "m", "method": "ft", "target": "a", "seed": 0, "fit": fit, "underfitted": 0}
    ri = pd.DataFrame([{**run, "ri": value, "ci_low": low, "ci_high": high}])
    # when
    labels = {"models": {"m": "M"}, "methods": {"ft": "FT"}, "targets": {"a": "A"}}
    figure, _ = ri_matrix.draw_ri_matrix(
        ri, ri.rename(columns={"ri": "mri"}), **labels, shared=[], confidence=0.95
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    # then
    assert FORMS["signed"](value) == f"{MINUS}10.0"
    assert FORMS["fit"](fit) == "98.7"
    assert texts[:3] == ["-10.0", "-10.3 to -9.7", "fit 98.7"]
