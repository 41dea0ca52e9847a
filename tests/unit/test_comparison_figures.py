"""Figures of comparisons, costs and training show the numbers of their tables.

The numbers are read back from the drawn objects.
"""

import itertools
import string

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from rib.analyses.comparison import figure as comparison
from rib.analyses.cost import figure as cost
from rib.analyses.training import figure as training
from rib.figures import STYLE

LOOKS = {
    "ft": {"label": "FT", "colour": "#d55e00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009e73", "marker": "^"},
    "wise": {"label": "WiSE", "colour": "#cc79a7", "marker": "D"},
}
LABELS = {name: look["label"] for name, look in LOOKS.items()}


def texts(axes):
    return [text.get_text() for text in axes.texts]


RANKED = [
    *("model", "method", "size", "mri", "ci_low", "ci_high", "seeds", "reference", "difference"),
    *("diff_low", "diff_high", "rank_best", "rank_worst", "letters", "fit"),
]


def ranked(seeds=1, model="m"):
    """ft is the reference; the interval of wise includes 0, that of lwf does not."""
    lines = [
        ("wise", "all", 4.0, 3.0, 5.5, seeds, "ft", 1.0, -0.5, 2.5, 1, 2, "a", np.nan),
        ("ft", "all", 3.0, 2.0, 4.0, seeds, "ft", 0.0, np.nan, np.nan, 1, 3, "ab", 99.9),
        ("lwf", "all", -1.0, -2.0, 0.5, seeds, "ft", -4.0, -6.0, -2.0, 2, 3, "b", 80.0),
    ]
    lines = [(model, *line) for line in lines]
    return pd.DataFrame(lines, columns=RANKED).assign(smallest_difference=2.34)


def draw_ranking(seeds=1, table=None):
    table = ranked(seeds) if table is None else table
    return comparison.draw_ranking(
        table, models={"m": "M", "n": "N", "none": "O"}, methods=LOOKS, confidence=0.95
    )


def bars_of(axes):
    return [line for line in axes.lines if line.get_linewidth() == 3]


def markers_of(axes):
    return [line for line in axes.lines if line.get_marker() in "o^D"]


def test_ranking_has_differences_from_the_reference_with_their_intervals_in_order():
    figure, shown = draw_ranking()
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.split()[0] for name in names] == ["WiSE", "FT", "LwF"]
    assert "99.9" in names[1]
    assert "80.0" in names[2]
    assert [list(bar.get_xdata()) for bar in bars_of(axes)] == [[-0.5, 2.5], [-6, -2]], (
        "the reference has none"
    )
    assert [to_hex(bar.get_color()) for bar in bars_of(axes)] == ["#cc79a7", "#009e73"]
    assert [marker.get_xdata()[0] for marker in markers_of(axes)] == [1, 0, -4]
    assert axes.yaxis_inverted()
    assert len(shown) == 3


def test_ranking_fills_the_markers_of_methods_whose_interval_is_off_zero():
    (axes,) = draw_ranking()[0].axes
    assert [to_hex(marker.get_markerfacecolor()) for marker in markers_of(axes)] == [
        "#ffffff",
        "#ffffff",
        "#009e73",
    ]


def test_ranking_names_the_reference_of_each_panel():
    """With a second model whose full fine-tuning is underfitted, the reference is another.

    Its differences are from the pretrained model.
    """
    other = ranked(model="n").query("method != 'ft'")
    other = other.assign(reference="pretrained", difference=other["mri"], diff_low=other["mri"] - 1)
    other["diff_high"] = other["mri"] + 1
    figure, _ = draw_ranking(table=pd.concat([ranked(), other], ignore_index=True))
    from_ft, from_pretrained = figure.axes
    assert "FT" in from_ft.get_xlabel()
    assert "pretrained" in from_pretrained.get_xlabel()


def test_ranking_has_mri_with_its_own_interval_beside_the_panel():
    (axes,) = draw_ranking()[0].axes
    minus = "\N{MINUS SIGN}"
    assert texts(axes)[1:4] == [
        "+4.0 [+3.0, +5.5]",
        "+3.0 [+2.0, +4.0]",
        f"{minus}1.0 [{minus}2.0, +0.5]",
    ]


def test_ranking_says_what_it_could_tell():
    assert "2.3 points" in draw_ranking()[0].get_supxlabel()
    of_one = ranked()[:1].assign(smallest_difference=np.nan, reference="pretrained")
    assert "nan" not in draw_ranking(table=of_one)[0].get_supxlabel()


def test_ranking_joins_methods_that_are_not_told_apart():
    (axes,) = draw_ranking()[0].axes
    placed = [
        (text.get_text(), text.get_position()[1])
        for text in axes.texts
        if len(text.get_text()) == 1
    ]
    assert placed == [("a", 0), ("a", 1), ("b", 1), ("b", 2)]
    joined = [tuple(line.get_ydata()) for line in axes.lines if not line.get_clip_on()]
    assert joined == [(0, 1), (1, 2)]


def ranked_with_letters(letters):
    """A row of a ranking for each letter."""
    rows = pd.concat([ranked()] * len(letters), ignore_index=True).iloc[: len(letters)]
    return rows.assign(letters=letters, reference="pretrained")


def test_numbers_and_all_letters_are_in_the_picture():
    # given as many letters as are drawn, two of them with a number
    letters = [*string.ascii_lowercase[:24], "a1", "b1"]
    assert len(letters) == comparison.MAX_LETTERS
    # when
    with plt.style.context(STYLE):
        figure, _ = draw_ranking(table=ranked_with_letters(letters))
        figure.draw_without_rendering()
        (axes,) = figure.axes
        boxes = {text: text.get_window_extent() for text in axes.texts}
    # then no text is cut, and letters are side by side
    assert max(box.x1 for box in boxes.values()) <= figure.bbox.x1
    boxes_of_letters = [box for text, box in boxes.items() if text.get_text() in letters]
    assert len(boxes_of_letters) == len(letters)
    boxes_of_letters.sort(key=lambda box: box.x0)
    for left, right in itertools.pairwise(boxes_of_letters):
        assert left.x1 < right.x0


def test_of_more_letters_none_is_drawn_and_the_figure_says_where_they_are():
    letters = [*string.ascii_lowercase, "a1"]
    assert len(letters) == comparison.MAX_LETTERS + 1
    figure, _ = draw_ranking(table=ranked_with_letters(letters))
    (axes,) = figure.axes
    assert not set(texts(axes)) & set(letters)
    assert "ranking.csv" in figure.get_supxlabel()


def test_a_ranking_without_methods_is_drawn():
    _, shown = comparison.draw_ranking(
        ranked()[:0], models={"m": "M"}, methods=LOOKS, confidence=0.95
    )
    assert shown.empty


def costs(ft=100.0, wise=110.0, lwf=90.0):
    lines = [
        ("m", name, "all", "cpu", took)
        for name, took in {"ft": ft, "lwf": lwf, "wise": wise}.items()
    ]
    return pd.DataFrame(lines, columns=["model", "method", "size", "device", "seconds"])


def draw_cost(table):
    return cost.draw_cost(table, ranked(), models={"m": "M"}, methods=LABELS, confidence=0.95)


def test_cost_has_bars_by_length_beside_mri():
    figure, shown = draw_cost(costs())
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["LwF", "FT", "WiSE"]
    assert [bar.get_width() for bar in left.patches] == [90, 100, 110] and texts(left) == [
        "90",
        "100",
        "110",
    ]
    assert left.get_xscale() == "linear"
    assert left.get_xlabel().startswith("CPU seconds")
    ends = [tuple(segment[:, 0]) for lines in right.collections for segment in lines.get_segments()]
    assert ends == [(-2, 0.5), (2, 4), (3, 5.5)] and shown["method"].tolist() == [
        "lwf",
        "ft",
        "wise",
    ]


def test_cost_has_a_logarithmic_axis_where_methods_are_far_apart_and_larger_units():
    figure, _ = draw_cost(costs(ft=90_000.0, lwf=3600.0).assign(device="cuda"))
    left = figure.axes[0]
    assert left.get_xscale() == "log"
    assert left.get_xlabel().startswith("GPU hours")
    assert left.patches[-1].get_width() == 25
    figure, _ = draw_cost(costs(lwf=4.9).assign(device=["cpu", "cpu+cuda", "cpu"]))
    assert figure.axes[0].get_xlabel().startswith("CPU and GPU seconds")
    figure, _ = draw_cost(costs(lwf=4.9).assign(device=["cpu", np.nan, "cpu"]))
    assert figure.axes[0].get_xlabel().startswith("CPU seconds")


def test_a_logarithmic_axis_of_costs_is_labelled_with_plain_numbers():
    """Also if it spans hardly more than one power of ten, where Matplotlib labels minor ticks."""
    with plt.style.context(STYLE):
        figure, _ = draw_cost(costs(ft=75.0, wise=240.0, lwf=11.0))
        figure.draw_without_rendering()
        axis = figure.axes[0].xaxis
        lowest, highest = axis.get_view_interval()
        labels = [
            label.get_text()
            for label in axis.get_ticklabels(which="both")
            if label.get_text() and lowest <= label.get_position()[0] <= highest
        ]
    minutes = [float(label) for label in labels]
    assert minutes == [0.2, 0.5, 1, 2, 5]


def histories(seeds):
    lines = [
        ("m", method, target, seed, epoch, 5.0 - epoch + seed, 20.0 * epoch + 4 * seed)
        for method, target, seed, epoch in itertools.product(("ft", "lwf"), "ab", seeds, (1, 2, 3))
    ]
    return pd.DataFrame(
        lines, columns=["model", "method", "target", "seed", "epoch", "cross_entropy", "accuracy"]
    )


def draw_training(table, targets):
    return training.draw_training(table, model="m", model_label="M", methods=LOOKS, targets=targets)


def test_training_has_a_column_per_target_and_a_line_per_trained_method():
    figure, shown_rows = draw_training(histories([0]), {"a": "Set A", "b": "Set B"})
    assert [axes.get_title() for axes in figure.axes] == ["Set A", "Set B", "", ""]
    loss, _loss_on_b, accuracy, _accuracy_on_b = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[4, 3, 2]] * 2
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[20, 40, 60]] * 2
    assert len(shown_rows) == 12


def test_training_has_thin_lines_per_seed_and_their_mean():
    figure, _ = draw_training(histories([0, 1]), {"a": "Set A", "b": "Set B"})
    lines = figure.axes[0].lines[:3]
    assert [list(line.get_ydata()) for line in lines] == [[4, 3, 2], [5, 4, 3], [4.5, 3.5, 2.5]]
    width_of_seed, width_of_other_seed, width_of_mean = (line.get_linewidth() for line in lines)
    assert width_of_seed == width_of_other_seed < width_of_mean


def test_training_of_many_targets_goes_on_below():
    targets = {name: name for name in "abcdefg"}
    table = pd.concat(
        [histories([0]).query("target == 'a'").assign(target=name) for name in targets]
    )
    figure, _ = draw_training(table, targets)
    titled = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titled == list("abcdefg")
    assert sum(axes.axison for axes in figure.axes) == 14
