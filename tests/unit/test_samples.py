"""Agreement, flips and calibration against counts by hand.

They are also compared with accuracy and mRI of the same rows.
"""

import json

import numpy as np
import pandas as pd
import pytest

from rib.analyses.samples.calibration_error import calibration_error_and_floor
from rib.analyses.samples.settings import SampleSettings
from rib.analyses.samples.tables import sample_tables
from rib.analysis.bootstrap import object_weights
from rib.analysis.counts import RowFiles, count
from rib.analysis.ri import ood_accuracies
from rib.analysis.sample_rows import compare_predictions
from rib.analysis.settings import RIStatistics
from rib.analysis.tables import accuracy_table, mri_tables
from rib.base.errors import UserError
from rib.config.label_space import LabelSpace
from rib.config.run import Run
from tiny.rows import by_runs
from tiny.states import columns_of_run
from tiny.tables import write


def calibration_error(confidence, right):
    return calibration_error_and_floor(confidence, right)[0]


def calibration_floor(confidence):
    return calibration_error_and_floor(confidence, np.zeros(len(confidence), bool))[1]


STATISTICS = {"replicates": 300, "confidence": 0.9, "seed": 5}
SIZES = {"a": 9, "b": 7, "c": 12}
SPACE = LabelSpace(("x", "y", "z"), ((0,), (1,), (2,)), ("x", "y", "z"), 3)
FIRST = {
    "a": 0,
    "b": 4,
    "c": 6,
}  # object of each, so that every two share some and have some of their own
RUNS = [
    ("pretrained", "none", 0),
    *((m, t, s) for m in ("ft", "lwf") for t in ("a", "b") for s in (0, 1)),
]


def rows_of(method, target, seed, rng):
    """A run's rows: three classes, an image of an object in `a` and `b`, two in `c`."""
    parts = []
    for dataset, n in SIZES.items():
        numbers = np.arange(n)
        columns = {
            "dataset": dataset,
            "row": numbers,
            "object_id": [
                f"o{FIRST[dataset] + (i // 2 if dataset == 'c' else i):02}" for i in numbers
            ],
            "label": numbers % 3,
            "prediction": (numbers + rng.choice(3, n, p=[0.6, 0.2, 0.2])) % 3,
            "confidence": rng.uniform(0.3, 1, n).astype(np.float32),
            "log_prob": np.full(n, -1, np.float16),
            "brier": np.full(n, 1, np.float16),
        }
        parts.append(pd.DataFrame(columns))
    run = columns_of_run(method, target, seed)
    rows = pd.concat(parts, ignore_index=True).assign(**run)
    return rows.assign(rank=(rows["prediction"] - rows["label"]) % 3)


def indexes_of(rows):
    first = rows["pretrained", "none", 0]
    return {name: part.reset_index(drop=True) for name, part in first.groupby("dataset")}


def counted(rows):
    return count(by_runs(*rows.values()), indexes_of(rows))


STORED = ["dataset", "row", "prediction", "rank", "confidence", "log_prob", "brier"]


@pytest.fixture
def grid(tmp_path):
    """Rows of a small grid, and where they lie."""
    rng = np.random.default_rng(0)
    rows = {run: rows_of(*run, rng) for run in RUNS}
    paths = []
    for (method, target, seed), part in rows.items():
        paths.append(tmp_path / f"m/{target}/{method}/all/{seed}/group.parquet")
        paths[-1].parent.mkdir(parents=True)
        part[STORED].to_parquet(paths[-1])
    for name, part in indexes_of(rows).items():
        (tmp_path / f"prepare/{name}/32px").mkdir(parents=True)
        part.assign(source_id=part["object_id"])[["object_id", "source_id", "label"]].to_parquet(
            tmp_path / f"prepare/{name}/32px/index.parquet"
        )
        (tmp_path / f"prepare/{name}/32px/classes.json").write_text(json.dumps(SPACE.to_json()))
    return rows, paths


def written(tmp_path, paths, source_groups=None):
    settings = SampleSettings(
        ri=RIStatistics(ood_datasets=list(SIZES), source_groups=source_groups, **STATISTICS),
        real_labels=[],
        groups={},
        scores=[],
        conditions="protocol paper",
        code="",
    )
    outputs = {
        name: tmp_path / f"{name}.csv" for name in ("samples", "flips", "scores", "mean_scores")
    }
    indexes, classes = (
        sorted(tmp_path.glob(f"prepare/*/*/{name}")) for name in ("index.parquet", "classes.json")
    )
    write(
        sample_tables,
        files=RowFiles(rows=paths, indexes=indexes),
        classes=classes,
        settings=settings,
        conditions=settings.conditions,
        outputs=outputs,
    )
    return [pd.read_csv(outputs[name]) for name in ("samples", "flips")]


def test_shares_are_counts_and_their_difference_is_the_change_of_accuracy(grid, tmp_path):
    rows, paths = grid
    table, _ = written(tmp_path, paths)
    accuracy = accuracy_table(counted(rows)).set_index(["method", "target", "seed", "dataset"])
    assert len(table) == 8 * 3 and set(table["conditions"]) == {"protocol paper"}
    for line in table.itertuples():
        before, after = rows["pretrained", "none", 0], rows[line.method, line.target, line.seed]
        before, after = (
            part[part["dataset"] == line.dataset].reset_index() for part in (before, after)
        )
        same = sum(p == q for p, q in zip(before["prediction"], after["prediction"], strict=True))
        assert line.agreement == pytest.approx(100 * same / SIZES[line.dataset], abs=1e-5)
        change = accuracy.loc[(line.method, line.target, line.seed, line.dataset), "accuracy"]
        change -= accuracy.loc[("pretrained", "none", 0, line.dataset), "accuracy"]
        assert line.wrong_to_right - line.right_to_wrong == pytest.approx(change, abs=1e-5)
        assert line.n == SIZES[line.dataset] and line.right_to_wrong > 0
        error = slow_error(after["confidence"], after["label"] == after["prediction"])
        assert line.ece_after == pytest.approx(error, abs=1e-5)


def slow_error(confidence, right, bins=15):
    """Expected calibration error bin by bin, as it is defined."""
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = [i for i, c in enumerate(confidence) if low <= c < high or (c == high == 1)]
        if own:
            gap = np.mean([right[i] for i in own]) - np.mean([float(confidence[i]) for i in own])
            total += len(own) / len(confidence) * abs(gap)
    return 100 * total


GROUPS = [None, {"a": "g", "c": "g"}, {"a": "g", "b": "g", "c": "g"}]


@pytest.mark.parametrize("groups", GROUPS, ids=["all", "two share", "all share"])
def test_leak_free_means_are_of_the_objects_that_each_target_leaves(grid, tmp_path, groups):
    """By hand. A target leaves a part of every dataset that shares sources with it.

    Each target leaves another part.
    """
    rows, paths = grid
    _, flips = written(tmp_path, paths, source_groups=groups)
    before = rows["pretrained", "none", 0]
    objects = {name: set(part["object_id"]) for name, part in before.groupby("dataset")}
    left = set()
    for method in ("ft", "lwf"):
        shares = []
        for target in ("a", "b"):
            for seed in (0, 1):
                after, parts = rows[method, target, seed], []
                for dataset in set(SIZES) - {target}:
                    out = (
                        objects[target] if groups and {target, dataset} <= groups.keys() else set()
                    )
                    kept = (before["dataset"] == dataset) & ~before["object_id"].isin(out)
                    left.add((dataset, target, int(kept.sum())))
                    parts.append(100 * (before["prediction"] == after["prediction"])[kept].mean())
                shares.append(np.mean(parts))
        assert flips.set_index("method").loc[method, "agreement"] == pytest.approx(
            np.mean(shares), abs=1e-5
        )
    of_c = {target: n for dataset, target, n in left if dataset == "c"}
    assert (
        of_c
        == {None: {"a": 12, "b": 12}, 2: {"a": 6, "b": 12}, 3: {"a": 6, "b": 2}}[
            groups and len(groups)
        ]
    )


@pytest.mark.parametrize("groups", GROUPS, ids=["all", "two share", "all share"])
def test_means_differ_by_mri_and_their_intervals_by_the_same_draws(grid, tmp_path, groups):
    rows, paths = grid
    _, flips = written(tmp_path, paths, source_groups=groups)
    counts = counted(rows)
    weights = object_weights(counts.objects, STATISTICS["replicates"], STATISTICS["seed"])
    mri, _ = mri_tables(
        ood_accuracies(counts, weights, source_groups=groups), STATISTICS["confidence"]
    )
    both = flips.merge(mri, on=["model", "method", "size"])
    assert len(both) == 2
    np.testing.assert_allclose(
        both["wrong_to_right"] - both["right_to_wrong"], both["mri"], atol=1e-5
    )


def test_intervals_equal_those_of_a_bootstrap_by_hand(grid, tmp_path):
    """Rows repeated as often as their object was drawn, shares recomputed from scratch."""
    rows, paths = grid
    _, flips = written(tmp_path, paths)
    objects = sorted({name for part in rows.values() for name in part["object_id"]})
    weights = object_weights(len(objects), STATISTICS["replicates"], STATISTICS["seed"])
    before, found = rows["pretrained", "none", 0], []
    for draw in weights[1:]:
        times = before["object_id"].map(dict(zip(objects, draw.astype(int), strict=True)))
        drawn = before.index.repeat(times)
        shares = []
        for target in ("a", "b"):
            for seed in (0, 1):
                after = rows["ft", target, seed]
                flipped = (before["prediction"] == before["label"]) & (
                    after["prediction"] != before["label"]
                )
                by_dataset = flipped.loc[drawn].groupby(before["dataset"].loc[drawn]).mean()
                shares.append(by_dataset.drop(target).mean())
        found.append(100 * np.mean(shares))
    line = flips.set_index("method").loc["ft"]
    expected = np.percentile(found, [5, 95])
    assert (line["right_to_wrong_low"], line["right_to_wrong_high"]) == pytest.approx(
        tuple(expected), abs=1e-5
    )


def test_what_all_objects_share_has_no_spread(grid, tmp_path):
    """A run that repeats the pretrained one agrees on every image, whatever is drawn."""
    rows, _ = grid
    paths = [
        tmp_path / f"same/m/{place}/all/0/group.parquet" for place in ("none/pretrained", "a/ft")
    ]
    for path in paths:
        path.parent.mkdir(parents=True)
        rows["pretrained", "none", 0].to_parquet(path)
    _, flips = written(tmp_path, paths)
    line = flips.iloc[0]
    assert line[["agreement", "agreement_low", "agreement_high"]].tolist() == [100, 100, 100]
    assert line[["right_to_wrong_low", "right_to_wrong_high", "wrong_to_right"]].tolist() == [
        0,
        0,
        0,
    ]


def test_calibration_error_of_known_cases():
    half = np.full(1000, 0.5)
    assert calibration_error(half, np.arange(1000) < 500) == 0, "perfectly calibrated"
    assert calibration_error(np.ones(10), np.zeros(10, bool)) == 100, "sure and always wrong"
    assert calibration_error(np.ones(10), np.ones(10, bool)) == 0, "sure and always right"
    # Bins of width 1/15: 0.31 and 0.32 share one (accuracy 1/2), 0.9 is alone:
    # (|1 - 0.63| + |0 - 0.9|) / 3.
    confidence, right = np.array([0.31, 0.32, 0.9]), np.array([True, False, False])
    assert calibration_error(confidence, right) == pytest.approx(100 * (0.37 + 0.9) / 3)
    # 0.54 and 0.59 share a bin of width 1/15, the others are alone:
    # (|1 - 0.5| + |1 - 1.13| + |1 - 0.61|) / 4. No other number of bins gives that.
    confidence, right = np.array([0.5, 0.54, 0.59, 0.61]), np.array([True, False, True, True])
    assert calibration_error(confidence, right) == pytest.approx(25.5)
    assert all(
        abs(slow_error(confidence, right, bins) - 25.5) > 4 for bins in range(4, 41) if bins != 15
    )
    # What is too sure on one half and too unsure on the other does not cancel out between bins.
    assert calibration_error(np.array([0.9, 0.1]), np.array([False, True])) == pytest.approx(90)
    assert calibration_error(np.array([1.0000001], np.float32), np.array([False])) == 100, (
        "rounded past 1"
    )


@pytest.mark.parametrize("n", [1, 5, 97, 1000])
@pytest.mark.parametrize("kind", ["any", "sure", "unsure"])
def test_the_floor_is_the_mean_error_of_a_perfectly_calibrated_model(n, kind):
    rng = np.random.default_rng(n)
    draw = {"any": (1, 1), "sure": (20, 1), "unsure": (1, 8)}[kind]
    confidence = rng.beta(*draw, n)
    errors = [calibration_error(confidence, rng.random(n) < confidence) for _ in range(2000)]
    noise = 4 * np.std(errors) / np.sqrt(len(errors))
    assert (
        -noise <= calibration_floor(confidence) - np.mean(errors) <= noise + 0.02 * np.mean(errors)
    )


def test_floors_of_known_cases():
    assert calibration_floor(np.array([0.3])) == pytest.approx(100 * 2 * 0.3 * 0.7), (
        "0.7 or 0.3 off"
    )
    assert calibration_floor(np.full(2, 0.5)) == pytest.approx(25), (
        "half the draws are 0.5 off, the others 0"
    )
    assert calibration_floor(np.array([0.3, 0.5, 0.5])) == pytest.approx((42 + 2 * 25) / 3)
    assert (
        calibration_floor(np.array([0.0, 1.0, 1.0]))
        == 0
        == calibration_floor(np.float32([1.0000001]))
    )
    large = np.full(50_000, 0.9)
    assert calibration_floor(large) == pytest.approx(
        100 * np.sqrt(2 * 0.09 / np.pi / 50_000), rel=1e-3
    ), "normal"


def test_tables_have_the_floors_before_and_after(grid, tmp_path):
    rows, paths = grid
    table, _ = written(tmp_path, paths)
    for line in table.itertuples():
        before, after = rows["pretrained", "none", 0], rows[line.method, line.target, line.seed]
        for part, found in ((before, line.ece_floor_before), (after, line.ece_floor_after)):
            own = part[part["dataset"] == line.dataset]["confidence"].to_numpy()
            assert found == pytest.approx(calibration_floor(own), abs=1e-5) and found > 0


def test_runs_on_different_images_are_refused():
    scored = pd.DataFrame({"row": [0, 1, 2], "rank": [0, 1, 2], "prediction": [0, 1, 2]})
    runs = (Run("m", "none", "pretrained", "all", 0), Run("m", "a", "ft", "all", 1))
    message = (
        "m/none/pretrained/all/0 and m/a/ft/all/1 were scored on different images of photos; delete"
    )
    with pytest.raises(UserError, match=message):
        compare_predictions(scored, scored.assign(row=[0, 1, 4]), "photos", runs)


def test_leak_free_means_are_without_images_that_are_identical_to_one_of_the_target(grid, tmp_path):
    """b's first image is identical to a's.

    Means over targets leave it out where a is the target, and reversed.
    """
    rows, paths = grid
    for name in SIZES:
        path = tmp_path / f"prepare/{name}/32px/index.parquet"
        index = pd.read_parquet(path)
        photos = [f"{name}/{row}" for row in range(len(index))]
        photos[0] = "of both" if name in ("a", "b") else photos[0]
        # objects as before, since those of a and b overlap in other images too
        index.assign(source_id=photos, photo_sha256=photos).to_parquet(path)
    _, flips = written(tmp_path, paths, source_groups={})
    before = rows["pretrained", "none", 0]
    shares = []
    for target in ("a", "b"):
        for seed in (0, 1):
            after, parts = rows["ft", target, seed], []
            for dataset in set(SIZES) - {target}:
                kept = (before["dataset"] == dataset) & ~(
                    (dataset in ("a", "b")) & (before["row"] == 0)
                )
                parts.append(100 * (before["prediction"] == after["prediction"])[kept].mean())
            shares.append(np.mean(parts))
    assert flips.set_index("method").loc["ft", "agreement"] == pytest.approx(
        np.mean(shares), abs=1e-5
    )
