"""How panels are arranged, and that long texts do not run into others."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rib.analyses.protocol import figure as protocol
from rib.analyses.radar import figure as radar
from rib.figures import STYLE
from rib.figures._panels import run_panels

DATASETS = {"a": "Set A", "b": "Set B"}
LONG = "a name of very many letters " * 2


@pytest.fixture(autouse=True)
def style_of_figures():
    """The style in which the workflow draws; closes what a test drew."""
    with plt.style.context(STYLE):
        yield
    plt.close("all")


@pytest.mark.parametrize("methods, columns, rows", [(4, 4, 1), (5, 3, 2)])
def test_methods_of_a_model_fill_rows_about_equally(methods, columns, rows):
    labels = {f"method{number}": f"Method {number}" for number in range(methods)}
    runs = pd.MultiIndex.from_product([["m"], labels], names=["model", "method"])
    numbers = pd.Series(1.0, index=runs)

    figure, panels = run_panels(numbers, {"m": "M"}, labels, panel=(1, 1), margin=(1, 1))

    grid = figure.axes[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == (columns, rows)
    assert len(panels) == methods


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


def test_label_of_a_dataset_ends_before_its_numbers():
    label = LONG + "and more"
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


def test_no_text_of_the_radar_is_cut():
    # given
    labels = [LONG, "W" * 20, LONG, "W" * 20]
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
