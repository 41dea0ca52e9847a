"""Accuracy on the target beside mRI: the table against sums written out, and what the figures draw."""

import numpy as np
import pandas as pd
import pytest

from rib.analysis.bootstrap import object_weights, over_runs
from rib.analysis.counts import Counts, write_counts
from rib.analysis.ri import ood_accuracies
from rib.analysis.tables import mri_tables
from rib.analysis.tradeoff import NUMBERS, tradeoff_table, write_tradeoff
from rib.figures import tradeoff, tradeoff_epochs

PRETRAINED = ("m", "pretrained", "none", "all", 0, None)
CURVE = [("m", "curve", target, "all", 0, alpha) for target in ("a", "b") for alpha in (0.0, 1.0)]
OBJECTS, PLACES = 8, {"a": [0, 1, 2, 3], "b": [2, 3, 4], "c": [4, 5, 6, 7]}


def counts_of(*tuned, seed=1):
    """Made-up counts of two images per object; datasets share some objects."""
    rng, states = (
        np.random.default_rng(seed),
        sorted([PRETRAINED, *tuned], key=lambda state: (state[:-1], state[-1] or 0)),
    )
    places = {name: np.array(own) for name, own in PLACES.items()}
    return Counts(
        states=states,
        datasets=list(places),
        objects=OBJECTS,
        places=places,
        labels={name: np.zeros(len(own), int) for name, own in places.items()},
        images={name: np.full(len(own), 2, np.uint16) for name, own in places.items()},
        correct={n: rng.integers(0, 3, (len(states), len(own)), dtype=np.uint16) for n, own in places.items()},
    )


def runs(*methods, targets=("a", "b"), seeds=(0,), size="all"):
    return [("m", method, target, size, seed, None) for method in methods for target in targets for seed in seeds]


def accuracy(counts, state, dataset, weights):
    """Accuracy in percent of one state, with one replicate's weights."""
    own, right = weights[PLACES[dataset]].astype(float), counts.correct[dataset][counts.states.index(state)]
    return 100 * (own * right).sum() / (2 * own).sum() if own.sum() else np.nan


def reference(counts, states, weights):
    """Per replicate: mean accuracy on the targets, and mRI, of the states of one method with one seed."""
    on_target, change = [], []
    for drawn in weights:
        on_target.append(np.mean([accuracy(counts, state, state[2], drawn) for state in states]))
        change.append(
            np.mean(
                [
                    np.mean([accuracy(counts, s, d, drawn) - accuracy(counts, PRETRAINED, d, drawn) for d in others])
                    for s, others in ((s, [d for d in PLACES if d != s[2]]) for s in states)
                ]
            )
        )
    return np.array(on_target), np.array(change)


def test_both_means_and_their_intervals_are_those_of_the_same_replicates():
    states = runs("ft", "lwf")
    counts, weights = counts_of(*states), object_weights(OBJECTS, 60, 0)
    table = tradeoff_table(counts, weights, 0.9).set_index("method")
    for method in ("ft", "lwf"):
        pair = reference(counts, [state for state in states if state[1] == method], weights)
        wanted = [(part[0], *np.nanpercentile(part[1:], [5, 95])) for part in pair]
        assert table.loc[method, NUMBERS].tolist() == pytest.approx(np.ravel(wanted).tolist())
    assert list(table["seeds"]) == [1, 1, 1] and table["alpha"].isna().all()


def test_the_pretrained_model_has_its_accuracy_on_the_targets_and_mri_zero_without_an_interval():
    counts, weights = counts_of(*runs("ft")), object_weights(OBJECTS, 60, 0)
    row = tradeoff_table(counts, weights, 0.9).set_index("method").loc["pretrained"]
    values = np.array([np.mean([accuracy(counts, PRETRAINED, d, drawn) for d in ("a", "b")]) for drawn in weights])
    assert row["mri"] == 0 and np.isnan(row["ci_low"]) and np.isnan(row["ci_high"])
    limits = np.nanpercentile(values[1:], [5, 95])
    assert row[NUMBERS[:3]].tolist() == pytest.approx([values[0], *limits])


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2, 5)])
def test_mri_is_that_of_the_mri_table_and_seeds_count_on_both_axes(seeds):
    states = runs("ft", seeds=seeds)
    counts, weights = counts_of(*states), object_weights(OBJECTS, 200, 0)
    row = tradeoff_table(counts, weights, 0.95, ood_datasets=["a", "c"]).set_index("method").loc["ft"]
    mri, _ = mri_tables(ood_accuracies(counts, weights, ["a", "c"]), 0.95)
    shared = ["mri", "ci_low", "ci_high", "seeds"]
    assert row[shared].tolist() == mri.iloc[0][shared].tolist() and row["seeds"] == len(seeds)
    by_run = [[[accuracy(counts, s, t, w) for w in weights] for s in states if s[2] == t] for t in ("a", "b")]
    assert row[NUMBERS[:3]].tolist() == pytest.approx(over_runs(np.array(by_run), 0.95))


def test_targets_that_are_not_evaluated_are_left_out():
    weights = object_weights(OBJECTS, 30, 0)
    counts = counts_of(*runs("ft", targets=("a", "outside")))
    row = tradeoff_table(counts, weights, 0.9).set_index("method").loc["ft"]
    assert row["on_target"] == pytest.approx(accuracy(counts, ("m", "ft", "a", "all", 0, None), "a", weights[0]))
    none = tradeoff_table(counts_of(*runs("ft", targets=("outside",))), weights, 0.9)
    assert none[NUMBERS[:3]].isna().all(axis=None) and none["mri"].notna().all()


def test_sizes_and_the_states_of_a_curve_are_rows_of_their_own(tmp_path):
    counts = counts_of(*runs("ft"), *runs("ft", size="0.5"), *CURVE)
    write_counts(counts, tmp_path / "counts.npz")
    settings = {"replicates": 30, "confidence": 0.9, "seed": 0, "conditions": "protocol paper"}
    choices = {"ood_datasets": list(PLACES), "source_groups": None}
    write_tradeoff(counts=tmp_path / "counts.npz", **choices, **settings, table=tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    keys = [("curve", "all", 0), ("curve", "all", 1), ("ft", "0.5", None), ("ft", "all", None)]
    found = [
        (row.method, row.size, None if np.isnan(row.alpha) else row.alpha) for row in table.itertuples(index=False)
    ]
    assert found == [*keys, ("pretrained", "all", None)] and set(table["conditions"]) == {"protocol paper"}
    again = tradeoff_table(counts, object_weights(OBJECTS, 30, 0), 0.9, **choices)
    np.testing.assert_allclose(table[NUMBERS], again[NUMBERS].astype(float), atol=1e-6)


def test_in_the_course_of_training_the_pretrained_model_is_at_zero_percent(tmp_path):
    """Of four images the pretrained model has one right, the snapshots two and three, on each of two datasets."""
    for name in ("a", "b"):
        index = pd.DataFrame({"object_id": list("wxyz"), "label": [0, 0, 1, 1]})
        (tmp_path / name / "view").mkdir(parents=True)
        index.to_parquet(tmp_path / name / "view/index.parquet")
    runs = [("pretrained", "none", None, 1), ("ft", "a", 0.5, 2), ("ft", "a", 1.0, 3)]
    parts = [
        {"model": "m", "method": method, "target": target, "size": "all", "seed": 0, "alpha": alpha, "dataset": name}
        | {"row": place, "rank": int(place >= right)}
        for method, target, alpha, right in runs
        for name in ("a", "b")
        for place in range(4)
    ]
    pd.DataFrame(parts).astype({"alpha": float}).to_parquet(tmp_path / "rows.parquet")
    write_tradeoff(
        rows=[tmp_path / "rows.parquet"],
        indexes=sorted(tmp_path.glob("*/view/index.parquet")),
        ood_datasets=["a", "b"],
        source_groups=None,
        conditions="",
        replicates=20,
        confidence=0.9,
        seed=0,
        table=tmp_path / "table.csv",
    )
    table = pd.read_csv(tmp_path / "table.csv").set_index("trained")
    assert table.index.tolist() == [50, 100, 0] and "alpha" not in table
    assert table["on_target"].tolist() == [50, 75, 25] and table["mri"].tolist() == [25, 50, 0]


STYLES = {
    "ft": {"label": "FT", "colour": "#D55E00", "marker": "o"},
    "lp": {"label": "LP", "colour": "#56B4E9", "marker": "s"},
    "w9": {"label": "W, alpha 0.9", "colour": "#CC79A7", "marker": "D"},
    "w1": {"label": "W, alpha 0.1", "colour": "#CC79A7", "marker": "D"},
}
LOOK = {"models": {"m": "M"}, "methods": STYLES, "protocol": "paper", "size": "all", "confidence": 0.9}
AVERAGES = {"ft": {"w9": 0.9, "w1": 0.1}}


def lines_of(*points, models=("m",), seeds=1):
    """Rows of a table from method, alpha, accuracy on the target, and mRI."""
    columns = ["model", "method", "size", "alpha", "seeds", *NUMBERS]
    lines = [
        (model, method, "all", alpha, seeds, x, x - 2, x + 1, y, y - 0.5 if y else np.nan, y + 0.25 if y else np.nan)
        for model in models
        for method, alpha, x, y in points
    ]
    return pd.DataFrame(lines, columns=columns).astype({"alpha": float})


POINTS = [
    ("w9", None, 88, 9),
    ("ft", None, 95, 12),
    ("lp", None, 70, -3),
    ("pretrained", None, 20, 0),
    ("w1", None, 35, 6),
]


def marks(axes):
    """Places of the points, by label."""
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in named}


def joined(axes):
    """Places along each line through several points."""
    several = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in several]


def test_one_point_per_method_with_both_whiskers_and_a_line_by_alpha():
    figure, shown = tradeoff.draw(lines_of(*POINTS), **LOOK, averages=AVERAGES)
    (axes,) = figure.axes
    assert marks(axes) == {
        "pretrained": [(20, 0)],
        "FT": [(95, 12)],
        "LP": [(70, -3)],
        "W, alpha 0.9": [(88, 9)],
        "W, alpha 0.1": [(35, 6)],
    }
    assert joined(axes) == [[(20, 0), (35, 6), (88, 9), (95, 12)]]
    assert [text.get_text() for text in axes.texts] == ["0.1", "0.9"]
    ends = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert any(np.array_equal(end, [[93, 12], [96, 12]]) for end in ends)
    assert any(np.array_equal(end, [[95, 11.5], [95, 12.25]]) for end in ends)
    assert axes.get_title("left") == "M" and len(shown) == 5
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pretrained", *(s["label"] for s in STYLES.values())]


def test_states_of_a_curve_make_the_line_in_place_of_single_alphas():
    states = [("curve", alpha, 20 + 75 * alpha, 30 * alpha * (1 - alpha)) for alpha in (1.0, 0.0, 0.5)]
    methods = {**STYLES, "curve": {"label": "C", "colour": "#000000", "marker": "."}}
    averages = {"ft": {**AVERAGES["ft"], "curve": None}}
    figure, _ = tradeoff.draw(lines_of(*POINTS, *states), **{**LOOK, "methods": methods}, averages=averages)
    (line,) = joined(figure.axes[0])
    assert line == [(20, 0), (20, 0), (57.5, 7.5), (95, 0)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5"] and marks(figure.axes[0])["C"] == []


@pytest.mark.parametrize(
    ("protocol", "size", "label"),
    [
        ("paper", "all", "fit: accuracy on the training images (%)"),
        ("paper", "0.5", "accuracy on the target, partly trained on (%)"),
        ("held_out", "all", "test accuracy on the target (%)"),
        ("held_out", "10", "test accuracy on the target (%)"),
    ],
)
def test_the_axis_says_what_the_accuracy_is_of(protocol, size, label):
    figure, _ = tradeoff.draw(lines_of(*POINTS), **{**LOOK, "protocol": protocol, "size": size}, averages={})
    assert figure.get_supxlabel().split("\n")[0] == label and figure.get_supylabel() == "mRI (percentage points)"


@pytest.mark.parametrize(
    ("seeds", "fixed"), [(1, "networks and targets"), (2, "networks and targets"), (3, "and seeds")]
)
def test_the_note_says_what_is_resampled(seeds, fixed):
    figure, _ = tradeoff.draw(lines_of(*POINTS, seeds=seeds), **LOOK, averages={})
    note = figure.get_supxlabel().replace("\n", " ")
    assert "90% confidence intervals over objects" in note and fixed in note


def test_points_whose_whiskers_would_hide_one_another_are_moved_a_little_left_within_a_panel():
    tied = [("pretrained", None, 20, 0), ("ft", None, 100, 12), ("lp", None, 100, 11.8), ("w1", None, 100, 3)]
    table = lines_of(*tied, models=("m", "n"))
    figure, shown = tradeoff.draw(table, **{**LOOK, "models": {"n": "N", "m": "M"}}, averages={})
    for axes in figure.axes:
        found = marks(axes)
        assert found["FT"] == [(100, 12)] and found["W, alpha 0.1"] == [(100, 3)]
        ((x, y),) = found["LP"]
        assert y == 11.8 and 97 < x < 99.5
    assert set(shown["on_target"]) == {20, 100}, "the table of the figure has the numbers themselves"


def test_a_target_that_is_not_evaluated_leaves_an_empty_figure():
    figure, shown = tradeoff.draw(lines_of(*POINTS).assign(on_target=np.nan), **LOOK, averages=AVERAGES)
    assert shown.empty and not [axes for axes in figure.axes if axes.get_title("left")]


def test_the_way_through_training_goes_from_the_pretrained_model_to_the_end():
    steps = [("ft", 50, 60, 8), ("ft", 100, 95, 12), ("lp", 100, 70, -3), ("lp", 50, 40, -1), ("pretrained", 0, 20, 0)]
    table = lines_of(*steps).rename(columns={"alpha": "trained"})
    methods = {name: STYLES[name] for name in ("ft", "lp")}
    figure, shown = tradeoff_epochs.draw(table, **{**LOOK, "methods": methods}, targets={"a": "Set A"})
    (axes,) = figure.axes
    assert joined(axes) == [[(20, 0), (60, 8), (95, 12)], [(20, 0), (40, -1), (70, -3)]]
    assert marks(axes) == {"pretrained": [(20, 0)], "FT": [(95, 12)], "LP": [(70, -3)]} and not axes.texts
    assert "fine-tuned on Set A" in figure.get_supxlabel().replace("\n", " ")
    assert set(shown["trained"]) == {0, 50, 100}
