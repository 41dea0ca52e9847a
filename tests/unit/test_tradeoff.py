"""Accuracy on the target beside mRI.

The columns are compared with sums written out; what the figures draw is read back.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.epochs import tradeoff_epochs
from rib.analyses.epochs.tables import tradeoff_table
from rib.analyses.tradeoff import tradeoff
from rib.analysis.bootstrap import object_weights, over_runs
from rib.analysis.counts import Counts, RowFiles
from rib.analysis.ri import ood_accuracies
from rib.analysis.tables import mri_tables
from rib.base.errors import UserError
from tiny.rows import write_rows
from tiny.states import state_of
from tiny.tables import write

PRETRAINED = state_of("m", "pretrained", "none", "all", 0)
CURVE = [
    state_of("m", "curve", target, "all", 0, alpha) for target in ("a", "b") for alpha in (0.0, 1.0)
]
NUMBERS = ["on_target", "on_target_low", "on_target_high", "mri", "ci_low", "ci_high"]
OBJECTS, PLACES = 8, {"a": [0, 1, 2, 3], "b": [2, 3, 4], "c": [4, 5, 6, 7]}


def counts_of(*tuned, seed=1):
    """Made-up counts of two images per object; datasets share some objects."""
    rng, states = np.random.default_rng(seed), sorted([PRETRAINED, *tuned])
    places = {name: np.array(own) for name, own in PLACES.items()}
    return Counts(
        states=states,
        datasets=list(places),
        objects=OBJECTS,
        object_indices=places,
        labels={name: np.zeros(len(own), int) for name, own in places.items()},
        images={name: np.full(len(own), 2, np.uint16) for name, own in places.items()},
        correct={
            n: rng.integers(0, 3, (len(states), len(own)), dtype=np.uint16)
            for n, own in places.items()
        },
    )


def runs(*methods, targets=("a", "b"), seeds=(0,), size="all"):
    return [
        state_of("m", method, target, size, seed)
        for method in methods
        for target in targets
        for seed in seeds
    ]


def accuracy(counts, state, dataset, weights):
    """Accuracy in percent of one state, with one replicate's weights."""
    own, right = (
        weights[PLACES[dataset]].astype(float),
        counts.correct[dataset][counts.states.index(state)],
    )
    return 100 * (own * right).sum() / (2 * own).sum() if own.sum() else np.nan


def reference(counts, states, weights):
    """Per replicate: mean accuracy on the targets, and mRI, of a method's states with one seed."""
    on_target, change = [], []
    for drawn in weights:
        on_target.append(
            np.mean([accuracy(counts, state, state.run.target, drawn) for state in states])
        )
        change.append(
            np.mean(
                [
                    np.mean(
                        [
                            accuracy(counts, s, d, drawn) - accuracy(counts, PRETRAINED, d, drawn)
                            for d in others
                        ]
                    )
                    for s, others in ((s, [d for d in PLACES if d != s.run.target]) for s in states)
                ]
            )
        )
    return np.array(on_target), np.array(change)


def mri_of(counts, weights, confidence=0.9, **choices):
    return mri_tables(ood_accuracies(counts, weights, **choices), confidence)[0].set_index("method")


def test_both_means_and_their_intervals_are_those_of_the_same_replicates():
    states = runs("ft", "lwf")
    counts, weights = counts_of(*states, *CURVE), object_weights(OBJECTS, 60, 0)
    table = mri_of(counts, weights)
    for method in ("ft", "lwf"):
        pair = reference(counts, [state for state in states if state.run.method == method], weights)
        wanted = [(part[0], *np.nanpercentile(part[1:], [5, 95])) for part in pair]
        assert table.loc[method, NUMBERS].tolist() == pytest.approx(np.ravel(wanted).tolist())
    before = np.mean([accuracy(counts, PRETRAINED, dataset, weights[0]) for dataset in ("a", "b")])
    assert (
        table["on_target_before"].tolist() == pytest.approx([before, before])
        and "curve" not in table.index
    )


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2, 5)])
def test_seeds_count_on_both_axes_and_targets_count_that_are_only_fine_tuned_on(seeds):
    states = runs("ft", seeds=seeds)
    counts, weights = counts_of(*states), object_weights(OBJECTS, 200, 0)
    row = mri_of(counts, weights, 0.95, ood_datasets=["a", "c"]).loc["ft"]
    by_run = [
        [[accuracy(counts, s, t, w) for w in weights] for s in states if s.run.target == t]
        for t in ("a", "b")
    ]
    assert row[NUMBERS[:3]].tolist() == pytest.approx(over_runs(np.array(by_run), 0.95))
    per_seed = ood_accuracies(counts, weights[:1], ["a", "c"])
    means = [
        np.mean([per_seed[s].change[0] for s in states if s.run.seed == seed]) for seed in seeds
    ]
    half = stats.t.ppf(0.975, len(seeds) - 1) * stats.sem(means)
    wanted = (len(seeds), np.std(means, ddof=1), np.mean(means) - half, np.mean(means) + half)
    assert row[["seeds", "seed_sd", "seed_low", "seed_high"]].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_targets_that_are_not_evaluated_are_left_out(seeds):
    weights = object_weights(OBJECTS, 30, 0)
    counts = counts_of(*runs("ft", targets=("a", "outside"), seeds=seeds))
    row, before = mri_of(counts, weights).loc["ft"], accuracy(counts, PRETRAINED, "a", weights[0])
    own = [
        accuracy(counts, state_of("m", "ft", "a", "all", seed), "a", weights[0]) for seed in seeds
    ]
    assert row[["on_target", "on_target_before"]].tolist() == pytest.approx([np.mean(own), before])
    none = mri_of(counts_of(*runs("ft", targets=("outside",), seeds=seeds)), weights)
    assert (
        none[[*NUMBERS[:3], "on_target_before"]].isna().all(axis=None) and none["mri"].notna().all()
    )


def test_sizes_are_rows_of_their_own():
    counts, weights = (
        counts_of(*runs("ft"), *runs("ft", size="0.5")),
        object_weights(OBJECTS, 30, 0),
    )
    table = mri_of(counts, weights).set_index("size")
    for size in ("all", "0.5"):
        own, _ = reference(counts, runs("ft", size=size), weights[:1])
        assert table.loc[size, "on_target"] == pytest.approx(own[0])


def test_in_the_course_of_training_the_pretrained_model_is_at_zero_percent(tmp_path):
    """Of four images the pretrained model has one right, the snapshots two and three.

    This is so on each of two datasets.
    """
    for name in ("a", "b"):
        index = pd.DataFrame({"object_id": list("wxyz"), "label": [0, 0, 1, 1]})
        (tmp_path / name / "view").mkdir(parents=True)
        index.to_parquet(tmp_path / name / "view/index.parquet")
    runs = [("pretrained", "none", None, 1), ("ft", "a", 0.5, 2), ("ft", "a", 1.0, 3)]
    parts = [
        {
            "model": "m",
            "method": method,
            "target": target,
            "size": "all",
            "seed": 0,
            "alpha": alpha,
            "dataset": name,
        }
        | {"row": place, "rank": int(place >= right)}
        for method, target, alpha, right in runs
        for name in ("a", "b")
        for place in range(4)
    ]
    rows = write_rows(tmp_path, pd.DataFrame(parts).astype({"alpha": float}))
    indexes = sorted(tmp_path.glob("*/view/index.parquet"))
    write(
        tradeoff_table,
        files=RowFiles(rows, indexes),
        ood_datasets=["a", "b"],
        source_groups=None,
        conditions="protocol paper",
        table=tmp_path / "table.csv",
    )
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table) == ["model", "method", "size", "trained", "on_target", "mri", "conditions"]
    assert set(table["method"]) == {"ft"} and table["trained"].tolist() == [0, 50, 100]
    assert table["on_target"].tolist() == [25, 50, 75] and table["mri"].tolist() == [0, 25, 50]
    with pytest.raises(UserError, match="no fine-tuned run is chosen"):
        write(
            tradeoff_table,
            files=RowFiles(
                [path for path in rows if "pretrained" in path.parts],  # no snapshot
                indexes,
            ),
            ood_datasets=["a", "b"],
            source_groups=None,
            conditions="protocol paper",
            table=tmp_path / "none.csv",
        )
    assert not (tmp_path / "none.csv").exists()


STYLES = {
    "ft": {"label": "FT", "colour": "#D55E00", "marker": "o"},
    "lp": {"label": "LP", "colour": "#56B4E9", "marker": "s"},
    "w9": {"label": "W, alpha 0.9", "colour": "#CC79A7", "marker": "D"},
    "w1": {"label": "W, alpha 0.1", "colour": "#CC79A7", "marker": "D"},
}
LOOK = {"models": {"m": "M"}, "methods": STYLES, "accuracy": "fit of the training images"}
SETTINGS = {**LOOK, "confidence": 0.9, "averages": {"w9": ("ft", 0.9), "w1": ("ft", 0.1)}}
POINTS = {"w9": (88, 9), "ft": (95, 12), "lp": (70, -3), "w1": (35, 6)}
NO_CURVE = pd.DataFrame(columns=["model", "method", "size", "alpha", "downstream", "ri"])


def mri_table(points=POINTS, models=("m",), seeds=1):
    """Rows of mri.csv from accuracy on the target and mRI by method; intervals are unsymmetric."""
    lines = [
        (model, method, "all", seeds, 20, x, x - 2, x + 1, y, y - 0.5, y + 0.25)
        for model in models
        for method, (x, y) in points.items()
    ]
    return pd.DataFrame(
        lines, columns=["model", "method", "size", "seeds", "on_target_before", *NUMBERS]
    )


def marks(axes):
    """Places of the points, by label."""
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {
        line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in named
    }


def joined(axes):
    """Places along each line through several points."""
    several = [
        line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2
    ]
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in several]


def test_changes_in_distribution_have_panels_of_their_own_below():
    mri = mri_table()
    inside = mri[["model", "method"]].assign(change=[-4.0, -1, -2, -3], ci_low=-9.0, ci_high=0.5)
    figure, shown = tradeoff.draw(mri, NO_CURVE, inside, **SETTINGS)
    above, below = figure.axes
    assert marks(above) == marks(tradeoff.draw(mri, NO_CURVE, **SETTINGS)[0].axes[0])
    changes = dict(zip(inside["method"], inside["change"], strict=True))
    on_target = dict(zip(mri["method"], mri["on_target"], strict=True))
    labels = {style["label"]: name for name, style in SETTINGS["methods"].items()}
    for label, points in marks(below).items():
        name = labels.get(label)
        expected = [(20, 0)] if name is None else [(on_target[name], changes[name])]
        assert points == expected
    assert shown["in_distribution"].notna().all()


def test_one_point_per_method_with_both_whiskers_and_a_line_by_alpha():
    figure, shown = tradeoff.draw(mri_table(), NO_CURVE, **SETTINGS)
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
    assert [text.get_text() for text in legend.get_texts()] == [
        "pretrained",
        *(s["label"] for s in STYLES.values()),
    ]


def test_variants_that_share_colour_and_marker_are_filled_differently():
    figure, _ = tradeoff.draw(mri_table(), NO_CURVE, **SETTINGS)
    fills = {line.get_label(): line.get_fillstyle() for line in figure.axes[0].lines}
    assert (fills["FT"], fills["LP"], fills["W, alpha 0.9"], fills["W, alpha 0.1"]) == (
        "full",
        "full",
        "full",
        "none",
    )


def test_each_parent_has_a_line_of_its_own():
    averages = {"w1": ("ft", 0.1), "w9": ("lp", 0.9)}
    figure, _ = tradeoff.draw(mri_table(), NO_CURVE, **{**SETTINGS, "averages": averages})
    assert joined(figure.axes[0]) == [[(20, 0), (35, 6), (95, 12)], [(20, 0), (88, 9), (70, -3)]]


def test_a_curve_is_the_mean_of_its_targets_and_seeds_with_a_few_alphas():
    states = [
        (
            "m",
            "curve",
            target,
            seed,
            alpha,
            20 + 75 * alpha + 2 * seed,
            30 * alpha * (1 - alpha) + apart,
        )
        for target, apart in (("a", -1), ("b", 1))
        for seed in (-1, 1)
        for alpha in (1.0, 0.0, 0.5)
    ]
    curves = pd.DataFrame(
        states, columns=["model", "method", "target", "seed", "alpha", "downstream", "ri"]
    )
    curves = pd.concat(
        [curves, curves.assign(target="outside", downstream=np.nan, ri=curves["ri"] + 3)]
    )
    methods = {**STYLES, "curve": {"label": "C", "colour": "#000000", "marker": "."}}
    settings = {**SETTINGS, "methods": methods, "averages": {}}
    figure, shown = tradeoff.draw(mri_table(), curves, **settings)
    (line,) = joined(figure.axes[0])
    assert np.ravel(line) == pytest.approx([20, 1.5, 57.5, 9, 95, 1.5]) and len(shown) == 5 + 3
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5"] and marks(figure.axes[0])[
        "C"
    ] == []


@pytest.mark.parametrize(
    ("seeds", "note"),
    [
        (1, "objects, for these networks and targets"),
        (2, "objects, for these networks and targets"),
        (3, "objects and seeds, for these targets"),
    ],
)
def test_the_axis_says_what_the_accuracy_is_and_the_note_what_is_resampled(seeds, note):
    figure, _ = tradeoff.draw(mri_table(seeds=seeds), NO_CURVE, **SETTINGS)
    label, *below = figure.get_supxlabel().split("\n")
    assert (
        label == "fit of the training images (%)"
        and figure.get_supylabel() == "mRI (percentage points)"
    )
    assert " ".join(below) == f"whiskers: 90% confidence intervals over {note}"


def test_models_have_panels_in_the_given_order():
    settings = {**SETTINGS, "models": {"n": "N", "none": "", "m": "M"}}
    figure, _ = tradeoff.draw(mri_table(models=("m", "n")), NO_CURVE, **settings)
    assert [axes.get_title("left") for axes in figure.axes] == ["N", "M"]


def test_a_target_that_is_not_evaluated_leaves_an_empty_panel():
    unknown = mri_table().assign(**dict.fromkeys(("on_target", "on_target_before"), np.nan))
    figure, _ = tradeoff.draw(unknown, NO_CURVE, **SETTINGS)
    assert all(np.isnan(x) for points in marks(figure.axes[0]).values() for x, _ in points)
    figure.canvas.draw()


def test_the_way_through_training_goes_from_the_pretrained_model_to_the_end():
    steps = [
        ("ft", 0, 20, 0),
        ("ft", 50, 60, 8),
        ("ft", 100, 95, 12),
        ("lp", 0, 20, 0),
        ("lp", 100, 70, -3),
    ]
    table = pd.DataFrame(
        [("m", *step) for step in steps], columns=["model", "method", "trained", "on_target", "mri"]
    )
    settings = {
        **LOOK,
        "methods": {name: STYLES[name] for name in ("ft", "lp")},
        "targets": {"a": "Set A"},
    }
    figure, shown = tradeoff_epochs.draw(table, **settings)
    (axes,) = figure.axes
    lines = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "."]
    assert lines == [[[20, 0], [60, 8], [95, 12]], [[20, 0], [70, -3]]]
    assert {name: set(places) for name, places in marks(axes).items()} == {
        "pretrained": {(20, 0)},
        "FT": {(95, 12)},
        "LP": {(70, -3)},
    }
    assert not axes.texts and "fine-tuned on Set A" in figure.get_supxlabel() and shown is table
