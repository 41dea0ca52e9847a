"""How panels are arranged, and that texts do not run into one another."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rib.analyses import accuracy_matrix, protocol, radar
from rib.figures import STYLE
from rib.figures._panels import run_panels

DATASETS = {"a": "Set A", "b": "Set B"}


@pytest.fixture(autouse=True)
def style_of_figures():
    """The style in which the workflow draws; closes what a test drew."""
    with plt.style.context(STYLE):
        yield
    plt.close("all")


@pytest.mark.parametrize(
    "methods, columns, rows", [(1, 1, 1), (4, 4, 1), (5, 3, 2), (8, 4, 2), (9, 3, 3)]
)
def test_methods_of_a_model_fill_rows_about_equally(methods, columns, rows):
    labels = {f"method{number}": f"Method {number}" for number in range(methods)}
    runs = pd.MultiIndex.from_product([["m"], labels], names=["model", "method"])
    numbers = pd.Series(1.0, index=runs)

    figure, panels = run_panels(numbers, {"m": "M"}, labels, panel=(1, 1), margin=(1, 1))

    grid = figure.axes[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == (columns, rows)
    assert len(panels) == methods


def test_rows_of_panels_are_equally_far_apart_also_above_missing_panels():
    # given seven methods of each model, so that the last of four columns has no panel at the bottom
    labels = {f"method{number}": f"Method {number}" for number in range(7)}
    runs = pd.MultiIndex.from_product([["m", "n"], labels], names=["model", "method"])
    numbers = pd.Series(1.0, index=runs)
    # when the axis has long labels
    figure, panels = run_panels(numbers, {"m": "M", "n": "N"}, labels, panel=(2, 1), margin=(1, 1))
    for axes in panels.values():
        axes.set_xticks([0, 1], ["a long label", "another one"], rotation=90)
    figure.draw_without_rendering()
    # then
    tops = [panels[model, f"method{first}"].get_position().y1 for model in "mn" for first in (0, 4)]
    distances = np.diff(tops)
    assert distances == pytest.approx(distances[0])
    above_missing = panels["n", "method3"]
    labels_of_axis = above_missing.get_xticklabels()
    assert [label.get_visible() for label in labels_of_axis] == [True, True]


def protocol_with_label(label, accuracy):
    """The figure of the protocol with a dataset of this label, and its texts by what they say.

    Args:
        label: of the dataset `b`, which is in distribution.
        accuracy: percent, of all networks on all datasets.
    """
    lines = []
    for method, target in [("pretrained", "none"), ("ft", "a")]:
        for dataset in DATASETS:
            lines.append(("m", method, target, 0, dataset, 50, accuracy))
    columns = ["model", "method", "target", "seed", "dataset", "n", "accuracy"]
    accuracies = pd.DataFrame(lines, columns=columns)
    ri = pd.DataFrame({"model": ["m"], "method": "ft", "target": "a", "seed": 0, "ri": 1.0})
    mri = pd.DataFrame({"model": ["m"], "method": "ft", "mri": 1.0, "ci_low": 0.0, "ci_high": 2.0})
    example = {
        "model": "m",
        "model_label": "M",
        "method": "ft",
        "method_label": "FT",
        "target": "a",
        "size": "all",
    }
    figure, _ = protocol.draw_protocol(
        accuracies,
        ri,
        mri,
        example=example,
        left_out={"b": "in distribution"},
        targets={"a": "Set A"},
        datasets={"a": "Set A", "b": label},
    )
    figure.draw_without_rendering()
    return figure.axes[0].texts


@pytest.mark.parametrize(
    "label", ["Set B", "Fashion-MNIST", "WWWWWWWWWWWWWWWWWWWW", "a name of very many letters " * 3]
)
def test_label_of_a_dataset_ends_before_its_numbers(label):
    texts = protocol_with_label(label, accuracy=100.0)

    label_texts = [text for text in texts if text.get_text() == f"{label} (in distribution)"]
    (label_text,) = label_texts
    height = label_text.get_position()[1]
    numbers_of_row = [
        text for text in texts if text.get_position()[1] == height and text is not label_text
    ]
    assert len(numbers_of_row) == 3
    leftmost = min(text.get_window_extent().x0 for text in numbers_of_row)
    assert label_text.get_window_extent().x1 < leftmost


LONG = "a name of very many letters " * 2


@pytest.mark.parametrize(
    "labels",
    [
        ["Noto", "Twemoji", "Fluent high contrast"],
        ["photographs of tools", "cue-conflict images", "silhouettes of tools", "edges of tools"],
        [LONG, "W" * 20, LONG, "W" * 20],
    ],
    ids=["of the catalogue", "of a family of one's own", "long"],
)
def test_no_text_of_the_radar_is_cut(labels):
    # given
    datasets = {f"set{number}": label for number, label in enumerate(labels)}
    lines = [
        (model, method, target, 0, dataset, 50.0)
        for model in ("m", "n")
        for method, target in [("pretrained", "none"), ("ft", "set1")]
        for dataset in datasets
    ]
    columns = ["model", "method", "target", "seed", "dataset", "accuracy"]
    look = {"colour": "#000000", "marker": "o"}
    models = {
        "m": {**look, "label": "EfficientNet-Lite0"},
        "n": {**look, "label": "ResNet-18 (Places365)"},
    }
    # when
    figure, _ = radar.draw_radar(
        pd.DataFrame(lines, columns=columns),
        target="set1",
        method="ft",
        method_label="full fine-tuning at the rate of replay",
        models=models,
        datasets=datasets,
    )
    figure.draw_without_rendering()
    # then
    (axes,) = figure.axes
    (legend,) = figure.legends
    canvas = figure.bbox
    for artist in (legend, *axes.get_xticklabels(), *axes.get_yticklabels()):
        box = artist.get_window_extent()
        assert canvas.x0 <= box.x0 and box.x1 <= canvas.x1
        assert canvas.y0 <= box.y0 and box.y1 <= canvas.y1
    circle = axes.get_window_extent()
    assert circle.width > canvas.width / 6


@pytest.mark.parametrize(
    "source_groups, is_explained", [({}, False), ({"a": "g"}, False), ({"a": "g", "b": "g"}, True)]
)
def test_mark_of_shared_sources_is_explained_where_it_is_used(source_groups, is_explained):
    accuracies = pd.DataFrame(
        [("m", "pretrained", "none", 0, "a", 50.0), ("m", "ft", "a", 0, "b", 60.0)],
        columns=["model", "method", "target", "seed", "dataset", "accuracy"],
    )

    figure, _ = accuracy_matrix.draw_accuracy_matrix(
        accuracies,
        models={"m": "M"},
        methods={"ft": "FT"},
        targets={"a": "Set A"},
        datasets=DATASETS,
        source_groups=source_groups,
        accuracy_on_target="fit of the training images",
    )

    assert ("shares its source images" in figure.get_supxlabel()) == is_explained
