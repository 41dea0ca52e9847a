"""Figures of representations show the numbers of their tables: read back from the drawn objects."""

import pandas as pd
import pytest

from rib.analyses.epochs.figure import draw_cka_epochs
from rib.analyses.representations.figure import draw_cka_layers
from rib.analyses.stir.figure import draw_stir

METHODS = {
    "ft": {"label": "FT", "colour": "#D55E00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009E73", "marker": "^"},
}
LOOK = {"models": {"m": "M"}, "methods": METHODS, "targets": {"a": "Set A"}, "confidence": 0.9}


@pytest.fixture
def cka():
    """CKA of two methods and two layers on the target and three other datasets.

    The numbers differ in the second decimal.
    """
    lines = [
        (
            "m",
            method,
            "a",
            seed,
            dataset,
            layer,
            depth,
            value + seed / 50,
            value - 0.1,
            value + 0.05,
        )
        for method, start in (("ft", 0.5), ("lwf", 0.7))
        for seed in (0, 1)
        for layer, depth in (("stage1", 1), ("pre_logits", 5))
        for dataset, value in (("a", start), ("b", 0.11), ("others", start - 0.2 - depth / 100))
    ]
    columns = [
        "model",
        "method",
        "target",
        "seed",
        "dataset",
        "layer",
        "depth",
        "cka",
        "ci_low",
        "ci_high",
    ]
    return pd.DataFrame(lines, columns=columns)


def test_cka_layers_has_a_line_per_method_with_its_intervals_on_the_target_and_on_the_others(cka):
    figure, shown = draw_cka_layers(cka, **LOOK)
    own, others = figure.axes
    lines = [
        container.lines[0].get_ydata() for axes in (own, others) for container in axes.containers
    ]
    means_over_seeds = [[0.51, 0.51], [0.71, 0.71], [0.3, 0.26], [0.5, 0.46]]
    assert [pytest.approx(line) for line in means_over_seeds] == [list(line) for line in lines]
    (ends,) = own.containers[0].lines[2]
    assert [pytest.approx(list(segment[:, 1])) for segment in ends.get_segments()] == [
        [0.4, 0.55]
    ] * 2
    assert set(shown["dataset"]) == {"target", "others"} and len(shown) == 8


def test_a_method_that_a_model_lacks_has_no_line(cka):
    figure, _ = draw_cka_layers(cka[cka["method"] == "ft"], **LOOK)
    assert [len(container.lines[0].get_ydata()) for container in figure.axes[0].containers] == [
        2,
        0,
    ]


def test_stir_shows_both_directions_and_cka_with_their_intervals():
    lines = [
        (
            "m",
            method,
            "a",
            0,
            reference,
            value,
            value - 0.1,
            value + 0.1,
            0.9,
            0.8,
            0.95,
            64,
            residual,
            0.99,
        )
        for method, start in (("ft", 0.3), ("lwf", 0.5))
        for reference, value, residual in (
            ("pretrained", start, 0.05),
            ("fine-tuned", start + 0.2, 0.11),
        )
    ]
    columns = [
        *("model", "method", "target", "seed", "reference", "stir", "ci_low", "ci_high"),
        *("cka", "cka_low", "cka_high", "n", "residual", "fidelity"),
    ]
    figure, shown = draw_stir(pd.DataFrame(lines, columns=columns), **LOOK)
    (axes,) = figure.axes
    heights = [list(container.lines[0].get_ydata()) for container in axes.containers]
    assert heights == [
        pytest.approx([0.3, 0.5]),
        pytest.approx([0.5, 0.7]),
        pytest.approx([0.9, 0.9]),
    ]
    (ends,) = axes.containers[0].lines[2]
    assert [pytest.approx(list(segment[:, 1])) for segment in ends.get_segments()] == [
        [0.2, 0.4],
        [0.4, 0.6],
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["FT", "LwF"]
    assert [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "_"] == [
        [0.99] * 2
    ] * 2
    assert "64 images" in figure.get_supxlabel()
    assert "5 to 11 %" in figure.get_supxlabel()
    assert len(shown) == 4


def test_cka_epochs_starts_at_1_and_has_a_point_per_snapshot(cka):
    rows = cka[cka["layer"] == "stage1"].drop(columns=["layer", "depth"])
    rows = pd.concat(
        [rows.assign(trained=50.0), rows.assign(trained=100.0, cka=rows["cka"] - 0.05)]
    )
    figure, shown = draw_cka_epochs(rows, **LOOK)
    lines = [
        list(container.lines[0].get_ydata())
        for axes in figure.axes
        for container in axes.containers
    ]
    assert lines == [pytest.approx([1, start, start - 0.05]) for start in (0.51, 0.71, 0.3, 0.5)]
    assert set(shown["trained"]) == {0, 50, 100}
