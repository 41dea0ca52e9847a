"""Accuracy on the target beside mRI.

The columns are compared with sums written out; what the figures draw is read back.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.epochs.figure import draw_tradeoff_epochs
from rib.analyses.epochs.tables import tradeoff_table
from rib.analyses.tradeoff import figure as tradeoff
from rib.base.errors import UserError
from rib.statistics.bootstrap import object_weights, over_runs
from rib.statistics.counts import Counts, RowFiles
from rib.statistics.ri import ood_accuracies
from rib.statistics.tables import mri_tables
from tiny.tables.rows import write_rows
from tiny.tables.states import state_of
from tiny.tables.tables import write

PRETRAINED = state_of("m", "pretrained", "none", "all", 0)
ON_TARGET = ["on_target", "on_target_low", "on_target_high"]
MRI = ["mri", "ci_low", "ci_high"]
# By dataset, its objects; of each there are two images.
OBJECTS = {"a": [0, 1, 2, 3], "b": [2, 3, 4], "c": [4, 5, 6, 7]}
NUMBER_OF_OBJECTS = 8
IMAGES_OF_OBJECT = 2


def runs(*methods, targets=("a", "b"), seeds=(0,), size="all"):
    """States of networks that were fine-tuned with these methods."""
    return [
        state_of("m", method, target, size, seed)
        for method in methods
        for target in targets
        for seed in seeds
    ]


def curve():
    """Both ends of a curve, for each target."""
    return [
        state_of("m", "curve", target, "all", 0, alpha)
        for target in ("a", "b")
        for alpha in (0.0, 1.0)
    ]


def random_counts(*fine_tuned):
    """Counts of the pretrained model and of these states, with random numbers of right answers."""
    rng = np.random.default_rng(1)
    states = sorted([PRETRAINED, *fine_tuned])
    object_indices = {dataset: np.array(indices) for dataset, indices in OBJECTS.items()}
    labels = {}
    images = {}
    correct = {}
    for dataset, indices in OBJECTS.items():
        objects = len(indices)
        labels[dataset] = np.zeros(objects, int)
        images[dataset] = np.full(objects, IMAGES_OF_OBJECT, np.uint16)
        correct[dataset] = rng.integers(
            0, IMAGES_OF_OBJECT + 1, (len(states), objects), dtype=np.uint16
        )
    return Counts(
        states=states,
        datasets=list(OBJECTS),
        objects=NUMBER_OF_OBJECTS,
        object_indices=object_indices,
        labels=labels,
        images=images,
        correct=correct,
    )


def accuracy(counts, state, dataset, weights):
    """Accuracy in percent of one state, with one replicate's weights."""
    weights_of_dataset = weights[OBJECTS[dataset]].astype(float)
    images = (IMAGES_OF_OBJECT * weights_of_dataset).sum()
    if images == 0:
        return np.nan
    right = counts.correct[dataset][counts.states.index(state)]
    return 100 * (weights_of_dataset * right).sum() / images


def on_target_by_hand(counts, states, weights):
    """Mean accuracy of states of one seed on their targets, with one replicate's weights."""
    return np.mean([accuracy(counts, state, state.run.target, weights) for state in states])


def mri_by_hand(counts, states, weights):
    """mRI of states of one seed, with one replicate's weights."""
    ri = []
    for state in states:
        changes = []
        for dataset in OBJECTS:
            if dataset != state.run.target:
                before = accuracy(counts, PRETRAINED, dataset, weights)
                after = accuracy(counts, state, dataset, weights)
                changes.append(after - before)
        ri.append(np.mean(changes))
    return np.mean(ri)


def with_interval(of_replicates):
    """The observed value and the ends of its percentile interval, with a confidence of 0.9."""
    observed, *resampled = of_replicates
    low, high = np.nanpercentile(resampled, [5, 95])
    return [observed, low, high]


def mri_rows(counts, weights, confidence=0.9, **choices):
    """The table of mRI, by method."""
    mri, _ = mri_tables(ood_accuracies(counts, weights, **choices), confidence)
    return mri.set_index("method")


# The columns


def test_both_means_and_their_intervals_are_those_of_the_same_replicates():
    counts = random_counts(*runs("ft", "lwf"), *curve())
    weights = object_weights(NUMBER_OF_OBJECTS, 60, 0)
    table = mri_rows(counts, weights)
    assert "curve" not in table.index
    for method in ("ft", "lwf"):
        states = runs(method)
        on_target = [on_target_by_hand(counts, states, replicate) for replicate in weights]
        assert table.loc[method, ON_TARGET].tolist() == pytest.approx(with_interval(on_target))
        mri = [mri_by_hand(counts, states, replicate) for replicate in weights]
        assert table.loc[method, MRI].tolist() == pytest.approx(with_interval(mri))
        before = [accuracy(counts, PRETRAINED, target, weights[0]) for target in ("a", "b")]
        assert table.loc[method, "on_target_before"] == pytest.approx(np.mean(before))


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2, 5)])
def test_seeds_count_on_both_axes_and_targets_count_that_are_only_fine_tuned_on(seeds):
    # given
    counts = random_counts(*runs("ft", seeds=seeds))
    weights = object_weights(NUMBER_OF_OBJECTS, 200, 0)
    # when
    row = mri_rows(counts, weights, 0.95, ood_datasets=["a", "c"]).loc["ft"]
    # then accuracies are over all runs
    on_target = []
    for target in ("a", "b"):
        of_seeds = []
        for state in runs("ft", targets=[target], seeds=seeds):
            of_seeds.append([accuracy(counts, state, target, replicate) for replicate in weights])
        on_target.append(of_seeds)
    assert row[ON_TARGET].tolist() == pytest.approx(over_runs(np.array(on_target), 0.95))
    # and the spread of seeds is that of their mRI
    ood = ood_accuracies(counts, weights[:1], ["a", "c"])
    mri_of_seeds = []
    for seed in seeds:
        changes = [ood[state].change[0] for state in runs("ft", seeds=[seed])]
        mri_of_seeds.append(np.mean(changes))
    mean = np.mean(mri_of_seeds)
    reach = stats.t.ppf(0.975, len(seeds) - 1) * stats.sem(mri_of_seeds)
    assert row["seeds"] == len(seeds)
    assert row["seed_sd"] == pytest.approx(np.std(mri_of_seeds, ddof=1))
    assert row["seed_low"] == pytest.approx(mean - reach)
    assert row["seed_high"] == pytest.approx(mean + reach)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_targets_that_are_not_evaluated_are_left_out(seeds):
    weights = object_weights(NUMBER_OF_OBJECTS, 30, 0)

    with_other_target = random_counts(*runs("ft", targets=("a", "outside"), seeds=seeds))
    row = mri_rows(with_other_target, weights).loc["ft"]
    of_seeds = [
        accuracy(with_other_target, state, "a", weights[0])
        for state in runs("ft", targets=["a"], seeds=seeds)
    ]
    before = accuracy(with_other_target, PRETRAINED, "a", weights[0])
    assert row["on_target"] == pytest.approx(np.mean(of_seeds))
    assert row["on_target_before"] == pytest.approx(before)

    without_other_target = random_counts(*runs("ft", targets=("outside",), seeds=seeds))
    row = mri_rows(without_other_target, weights).loc["ft"]
    assert row[[*ON_TARGET, "on_target_before"]].isna().all()
    assert not np.isnan(row["mri"])


def test_sizes_are_rows_of_their_own():
    counts = random_counts(*runs("ft", size="all"), *runs("ft", size="0.5"))
    weights = object_weights(NUMBER_OF_OBJECTS, 30, 0)
    table = mri_rows(counts, weights).set_index("size")
    for size in ("all", "0.5"):
        expected = on_target_by_hand(counts, runs("ft", size=size), weights[0])
        assert table.loc[size, "on_target"] == pytest.approx(expected)


def snapshot_rows(method, target, alpha, right):
    """Rows of a network on two datasets of four images, of which it has the first ones right.

    Args:
        alpha: share of training; NaN for the pretrained model.
        right: number of images of each dataset.
    """
    of_datasets = []
    for dataset in ("a", "b"):
        columns = {
            "model": "m",
            "method": method,
            "target": target,
            "size": "all",
            "seed": 0,
            "alpha": alpha,
            "dataset": dataset,
            "row": range(4),
            "rank": [0] * right + [1] * (4 - right),
        }
        of_datasets.append(pd.DataFrame(columns))
    return pd.concat(of_datasets)


def write_tradeoff_table(files, table):
    """Write the table of the course of training as its job does."""
    write(
        tradeoff_table,
        files=files,
        ood_datasets=["a", "b"],
        source_groups=None,
        conditions="protocol paper",
        table=table,
    )


def test_in_the_course_of_training_the_pretrained_model_is_at_zero_percent(tmp_path):
    """Of four images the pretrained model has one right, the snapshots two and three.

    This is so on each of two datasets.
    """
    # given
    indexes = []
    for dataset in ("a", "b"):
        path = tmp_path / dataset / "view/index.parquet"
        path.parent.mkdir(parents=True)
        index = pd.DataFrame({"object_id": ["w", "x", "y", "z"], "label": [0, 0, 1, 1]})
        index["photo_sha256"] = dataset + index["object_id"]
        index.to_parquet(path)
        indexes.append(path)
    pretrained_rows = write_rows(
        tmp_path, snapshot_rows("pretrained", "none", alpha=np.nan, right=1)
    )
    snapshots = pd.concat(
        [
            snapshot_rows("ft", "a", alpha=0.5, right=2),
            snapshot_rows("ft", "a", alpha=1.0, right=3),
        ]
    )
    rows_of_snapshots = write_rows(tmp_path, snapshots)
    # when
    file = tmp_path / "table.csv"
    write_tradeoff_table(RowFiles([*pretrained_rows, *rows_of_snapshots], indexes), file)
    # then
    table = pd.read_csv(file)
    assert set(table["method"]) == {"ft"}
    assert table["trained"].tolist() == [0, 50, 100]
    assert table["on_target"].tolist() == [25, 50, 75]
    assert table["mri"].tolist() == [0, 25, 50]
    # and without snapshots there is no table
    no_file = tmp_path / "none.csv"
    with pytest.raises(UserError, match="no fine-tuned run"):
        write_tradeoff_table(RowFiles(pretrained_rows, indexes), no_file)
    assert not no_file.exists()


# The figure

STYLES = {
    "ft": {"label": "FT", "colour": "#D55E00", "marker": "o"},
    "lp": {"label": "LP", "colour": "#56B4E9", "marker": "s"},
    "w9": {"label": "W, alpha 0.9", "colour": "#CC79A7", "marker": "D"},
    "w1": {"label": "W, alpha 0.1", "colour": "#CC79A7", "marker": "D"},
}
SETTINGS = {
    "models": {"m": "M"},
    "methods": STYLES,
    "averages": {"w9": ("ft", 0.9), "w1": ("ft", 0.1)},
    "rates": [],
    "accuracy": "fit of the training images",
    "confidence": 0.9,
}
# Accuracy on the target and mRI by method, and before fine-tuning.
POINTS = {"w9": (88, 9), "ft": (95, 12), "lp": (70, -3), "w1": (35, 6)}
ORIGIN = (20, 0)
NO_CURVE = pd.DataFrame(columns=["model", "method", "size", "alpha", "downstream", "ri"])


def mri_table(models=("m",), seeds=1):
    """Rows of mri.csv with the points `POINTS`; intervals are unsymmetric."""
    on_target_before, _ = ORIGIN
    lines = []
    for model in models:
        for method, (on_target, mri) in POINTS.items():
            line = {
                "model": model,
                "method": method,
                "size": "all",
                "seeds": seeds,
                "on_target_before": on_target_before,
                "on_target": on_target,
                "on_target_low": on_target - 2,
                "on_target_high": on_target + 1,
                "mri": mri,
                "ci_low": mri - 0.5,
                "ci_high": mri + 0.25,
            }
            lines.append(line)
    return pd.DataFrame(lines)


def points_of(line):
    """The points of a line that was drawn."""
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def points_by_label(axes):
    """Points that were drawn, by label."""
    return {
        line.get_label(): points_of(line)
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def joined_points(axes):
    """Points along each line through several points."""
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    return [points_of(line) for line in lines if len(points_of(line)) > 2]


def texts_of(artists):
    """What labels and legends of a figure say."""
    return [artist.get_text() for artist in artists]


def test_one_point_per_method_with_both_whiskers_and_a_line_by_alpha():
    figure, drawn_rows = tradeoff.draw_tradeoff(mri_table(), NO_CURVE, **SETTINGS)
    (axes,) = figure.axes
    assert points_by_label(axes) == {
        "pretrained": [ORIGIN],
        "FT": [(95, 12)],
        "LP": [(70, -3)],
        "W, alpha 0.9": [(88, 9)],
        "W, alpha 0.1": [(35, 6)],
    }
    assert joined_points(axes) == [[ORIGIN, (35, 6), (88, 9), (95, 12)]]
    assert texts_of(axes.texts) == ["0.1", "0.9"]
    whiskers = []
    for lines in axes.collections:
        whiskers += [segment.tolist() for segment in lines.get_segments()]
    assert [[93, 12], [96, 12]] in whiskers
    assert [[95, 11.5], [95, 12.25]] in whiskers
    assert len(drawn_rows) == 1 + len(POINTS)


def test_changes_in_distribution_have_panels_of_their_own_below():
    # given
    change_of_method = {"w9": -4.0, "ft": -1.0, "lp": -2.0, "w1": -3.0}
    in_distribution = pd.DataFrame(
        {
            "model": "m",
            "method": list(change_of_method),
            "change": list(change_of_method.values()),
            "ci_low": -9.0,
            "ci_high": 0.5,
        }
    )
    # when
    figure, drawn_rows = tradeoff.draw_tradeoff(mri_table(), NO_CURVE, in_distribution, **SETTINGS)
    # then
    above, below = figure.axes
    figure_without, _ = tradeoff.draw_tradeoff(mri_table(), NO_CURVE, **SETTINGS)
    (axes_without,) = figure_without.axes
    assert points_by_label(above) == points_by_label(axes_without)
    assert points_by_label(below) == {
        "pretrained": [ORIGIN],
        "FT": [(95, -1)],
        "LP": [(70, -2)],
        "W, alpha 0.9": [(88, -4)],
        "W, alpha 0.1": [(35, -3)],
    }
    assert drawn_rows["in_distribution"].notna().all()


def test_each_parent_has_a_line_of_its_own():
    averages = {"w1": ("ft", 0.1), "w9": ("lp", 0.9)}
    figure, _ = tradeoff.draw_tradeoff(mri_table(), NO_CURVE, **{**SETTINGS, "averages": averages})
    (axes,) = figure.axes
    assert joined_points(axes) == [
        [ORIGIN, (35, 6), (95, 12)],
        [ORIGIN, (88, 9), (70, -3)],
    ]


def test_a_dotted_line_joins_the_rates_of_a_method_and_names_each():
    rates = [[("w1", "0.001"), ("ft", "0.01"), ("lp", "0.1")]]
    settings = {**SETTINGS, "averages": {}, "rates": rates}
    figure, _ = tradeoff.draw_tradeoff(mri_table(), NO_CURVE, **settings)
    (axes,) = figure.axes
    assert not joined_points(axes)
    dotted = [points_of(line) for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == [[(35, 6), (95, 12), (70, -3)]]
    assert texts_of(axes.texts) == ["0.001", "0.01", "0.1"]


def curve_table():
    """Rows of curves.csv of two targets that are evaluated and of one that is not, with two seeds.

    The mean on the two targets is 20 + 75 alpha and the mean RI, of all three, is
    30 alpha (1 - alpha) + 1.5.
    """
    ri_above_mean = {"a": -1, "b": 1}
    lines = []
    for target, above_mean in ri_above_mean.items():
        for seed in (-1, 1):
            for alpha in (1.0, 0.0, 0.5):
                line = {
                    "model": "m",
                    "method": "curve",
                    "target": target,
                    "seed": seed,
                    "alpha": alpha,
                    "downstream": 20 + 75 * alpha + 2 * seed,
                    "ri": 30 * alpha * (1 - alpha) + above_mean,
                }
                lines.append(line)
    evaluated = pd.DataFrame(lines)
    not_evaluated = evaluated.assign(target="outside", downstream=np.nan, ri=evaluated["ri"] + 3)
    return pd.concat([evaluated, not_evaluated])


def test_a_curve_is_the_mean_of_its_targets_and_seeds_with_a_few_alphas():
    methods = {**STYLES, "curve": {"label": "C", "colour": "#000000", "marker": "."}}
    settings = {**SETTINGS, "methods": methods, "averages": {}}
    figure, drawn_rows = tradeoff.draw_tradeoff(mri_table(), curve_table(), **settings)
    (axes,) = figure.axes
    (points,) = joined_points(axes)
    expected = np.array([(20, 1.5), (57.5, 9), (95, 1.5)])
    assert np.array(points) == pytest.approx(expected)
    assert texts_of(axes.texts) == ["0.5"]
    assert points_by_label(axes)["C"] == []
    assert len(drawn_rows) == 1 + len(POINTS) + len(expected)


def test_a_target_that_is_not_evaluated_leaves_an_empty_panel():
    not_evaluated = mri_table().assign(on_target=np.nan, on_target_before=np.nan)
    figure, _ = tradeoff.draw_tradeoff(not_evaluated, NO_CURVE, **SETTINGS)
    (axes,) = figure.axes
    points = points_by_label(axes)
    assert points.keys() == {"pretrained", *(style["label"] for style in STYLES.values())}
    for ((on_target, _),) in points.values():
        assert np.isnan(on_target)
    figure.canvas.draw()


def test_the_way_through_training_goes_from_the_pretrained_model_to_the_end():
    # given
    table = pd.DataFrame(
        [
            ("m", "ft", 0, 20, 0),
            ("m", "ft", 50, 60, 8),
            ("m", "ft", 100, 95, 12),
            ("m", "lp", 0, 20, 0),
            ("m", "lp", 100, 70, -3),
        ],
        columns=["model", "method", "trained", "on_target", "mri"],
    )
    # when
    figure, drawn_rows = draw_tradeoff_epochs(
        table,
        models={"m": "M"},
        methods={"ft": STYLES["ft"], "lp": STYLES["lp"]},
        accuracy="fit of the training images",
        targets={"a": "Set A"},
    )
    # then
    (axes,) = figure.axes
    lines = [points_of(line) for line in axes.lines if line.get_marker() == "."]
    assert lines == [[ORIGIN, (60, 8), (95, 12)], [ORIGIN, (70, -3)]]
    points = {label: set(points) for label, points in points_by_label(axes).items()}
    assert points == {"pretrained": {ORIGIN}, "FT": {(95, 12)}, "LP": {(70, -3)}}
    assert not axes.texts
    assert drawn_rows is table
