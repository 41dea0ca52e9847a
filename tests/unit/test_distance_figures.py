"""Figures of distances show the numbers of their tables: read back from the drawn objects."""

import itertools

import numpy as np
import pandas as pd
import pytest

from rib.analyses.distances.figure import draw_distance_drop, draw_distance_matrix

DATASETS = {"a": "Set A", "b": "Set B", "c": "Set C"}
TARGETS = {"a": "Set A", "c": "Set C"}
KINDS = {"otdd": "OTDD", "ncd": "NCD"}
MODELS = {"m2": "Second", "m1": "First"}


@pytest.fixture
def distances():
    pairs = list(itertools.combinations(DATASETS, 2))
    lines = [
        (model, *pair, kind, scale * (1 + place), 30 if kind == "otdd" else 20)
        for model in MODELS
        for kind, scale in (("otdd", 10.0), ("ncd", 0.1))
        for place, pair in enumerate(pairs)
    ]
    return pd.DataFrame(lines, columns=["model", "first", "second", "distance", "value", "n"])


@pytest.fixture
def association():
    lines = [
        (model, method, kind, level, statistic, value, 0.25)
        for model, method, kind, level in itertools.product(
            MODELS, ("ft", "lwf"), KINDS, ("pairs", "targets")
        )
        for statistic, value in (
            ("pearson", 0.5 if (method, level) == ("ft", "targets") else 0.9),
            ("spearman", -0.75),
        )
    ]
    columns = ["model", "method", "distance", "level", "statistic", "value", "p"]
    return pd.DataFrame(lines, columns=columns)


@pytest.fixture
def ri():
    lines = [
        (model, method, target, seed, value + seed, value - 1, value + 2)
        for model, method, seed in itertools.product(MODELS, ("ft", "lwf"), (0, 1))
        for target, value in (("a", 5.0 if method == "ft" else 50.0), ("c", -7.0))
    ]
    return pd.DataFrame(
        lines, columns=["model", "method", "target", "seed", "ri", "ci_low", "ci_high"]
    )


def drop(distances, association, ri, **choices):
    shown_distances = {
        "kinds": KINDS,
        "ood_datasets": list(DATASETS),
        "in_distribution": None,
        "in_distribution_label": None,
        **choices,
    }
    return draw_distance_drop(
        distances,
        association,
        ri,
        models=MODELS,
        targets=TARGETS,
        example={"method": "ft", "method_label": "FT"},
        confidence=0.9,
        **shown_distances,
    )


def points(axes):
    """Places of a panel's points and the ends of their whiskers."""
    drawn = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() in "os"
    ]
    ends = [tuple(part[:, 1]) for whiskers in axes.collections for part in whiskers.get_segments()]
    return drawn, ends


def test_each_target_is_a_point_with_its_interval(distances, association, ri):
    figure, shown = drop(distances, association, ri)
    panels = figure.axes
    assert [axes.get_xlabel() for axes in panels[2:]] == list(KINDS.values())
    drawn, ends = points(panels[0])
    # distances: a-b 10, a-c 20, b-c 30; RI is the mean of two seeds
    np.testing.assert_allclose(drawn, [(15, 5.5), (25, -6.5)])
    np.testing.assert_allclose(ends, [(4, 7), (-8, -5)])
    np.testing.assert_allclose(points(panels[3])[0], [(0.15, 5.5), (0.25, -6.5)])
    for number in ("+0.500", "\N{MINUS SIGN}0.750", "0.25"):
        assert number in panels[0].get_title()
    assert len(shown) == len(MODELS) * len(KINDS) * len(TARGETS)


def test_with_a_dataset_in_distribution_distances_are_to_it(distances, association, ri):
    choices = {"in_distribution": "b", "in_distribution_label": "Set B", "ood_datasets": ["a", "c"]}
    figure, _ = drop(distances, association, ri, **choices)
    np.testing.assert_allclose(points(figure.axes[0])[0], [(10, 5.5), (30, -6.5)])


def test_too_few_points_have_no_correlation(distances, association, ri):
    figure, _ = drop(distances, association.assign(value=np.nan), ri)
    assert not any("nan" in axes.get_title() for axes in figure.axes)


def test_the_matrix_has_each_pairs_number_once_with_n(distances):
    figure, shown = draw_distance_matrix(distances, models=MODELS, datasets=DATASETS, kinds=KINDS)
    first, second = figure.axes[:2]
    assert [text.get_text() for text in first.texts] == ["10.0", "20.0", "30.0"]
    assert [text.get_text() for text in second.texts] == ["0.100", "0.200", "0.300"]
    assert [text.get_position() for text in first.texts] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]  # a-b, a-c, b-c
    assert "30" in first.get_title()
    assert "20" in second.get_title()
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == list(MODELS.values())
    assert len(shown) == len(distances)
