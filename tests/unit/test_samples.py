"""Agreement, flips and calibration against counts by hand.

They are also compared with accuracy and mRI of the same rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from rib.analyses.samples.resampled_means import DatasetObjects, ResampledObjects
from rib.analyses.samples.tables import sample_tables
from rib.base.errors import UserError
from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace
from rib.statistics.bootstrap import object_weights
from rib.statistics.calibration_error import calibration_error_and_floor
from rib.statistics.counts import RowFiles, count
from rib.statistics.objects import ALL_INDICES
from rib.statistics.ri import ood_accuracies
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tables import accuracy_table, mri_tables
from tiny.tables.rows import by_runs
from tiny.tables.states import columns_of_run
from tiny.tables.tables import write


def calibration_error(confidence, is_correct):
    """Expected calibration error in percent."""
    error, _ = calibration_error_and_floor(confidence, is_correct)
    return error


def calibration_floor(confidence):
    """The error in percent that a perfectly calibrated model has on average."""
    _, floor = calibration_error_and_floor(confidence, np.zeros(len(confidence), bool))
    return floor


STATISTICS = {"replicates": 300, "confidence": 0.9, "seed": 5}
SIZES = {"a": 9, "b": 7, "c": 12}
SPACE = LabelSpace(("x", "y", "z"), ((0,), (1,), (2,)), ("x", "y", "z"), 3)
# By dataset, its first object: every two datasets share some and have some of their own.
FIRST_OBJECT = {"a": 0, "b": 4, "c": 6}
IMAGES_OF_OBJECT = {"a": 1, "b": 1, "c": 2}


class TunedRun(NamedTuple):
    """A run of the grid, all of whose runs are of one model and size."""

    method: str
    target: str
    seed: int


PRETRAINED = TunedRun("pretrained", "none", 0)


def runs_of_method(method):
    """The runs of a method: two targets, two seeds."""
    return [TunedRun(method, target, seed) for target in ("a", "b") for seed in (0, 1)]


RUNS = [PRETRAINED, *runs_of_method("ft"), *runs_of_method("lwf")]


def random_rows(run, rng):
    """A run's rows: three classes, an image of an object in `a` and `b`, two in `c`."""
    tables = []
    for dataset, n in SIZES.items():
        numbers = np.arange(n)
        objects = FIRST_OBJECT[dataset] + numbers // IMAGES_OF_OBJECT[dataset]
        columns = {
            "dataset": dataset,
            "row": numbers,
            "object_id": [f"o{number:02}" for number in objects],
            "label": numbers % 3,
            "prediction": (numbers + rng.choice(3, n, p=[0.6, 0.2, 0.2])) % 3,
            "confidence": rng.uniform(0.3, 1, n).astype(np.float32),
            "log_prob": np.full(n, -1, np.float16),
            "brier": np.full(n, 1, np.float16),
        }
        tables.append(pd.DataFrame(columns))
    rows = pd.concat(tables, ignore_index=True)
    rows = rows.assign(**columns_of_run(run.method, run.target, run.seed))
    return rows.assign(rank=(rows["prediction"] - rows["label"]) % 3)


STORED = ["method", "dataset", "row", "prediction", "rank", "confidence", "log_prob", "brier"]


@dataclass(frozen=True)
class EvaluatedGrid:
    """Rows of a small grid, and where they lie."""

    folder: Path
    rows: Mapping[TunedRun, pd.DataFrame]
    row_files: list[Path]

    @property
    def pretrained(self):
        """The rows of the pretrained model."""
        return self.rows[PRETRAINED]

    def indexes(self):
        """The index of each dataset."""
        by_dataset = self.pretrained.groupby("dataset")
        return {dataset: index.reset_index(drop=True) for dataset, index in by_dataset}

    def index_path(self, dataset):
        """The file of a dataset's index."""
        return self.folder / f"prepare/{dataset}/32px/index.parquet"

    def counts(self):
        """The counts of all rows."""
        return count(by_runs(*self.rows.values()), self.indexes())

    def sample_tables(self, source_groups=None, row_files=None):
        """The tables `samples` and `flips` that are made of the grid, or of other files of rows."""
        names = ("samples", "flips", "scores", "mean_scores")
        outputs = {name: self.folder / f"{name}.csv" for name in names}
        indexes = [self.index_path(dataset) for dataset in sorted(SIZES)]
        write(
            sample_tables,
            files=RowFiles(rows=row_files or self.row_files, indexes=indexes),
            classes=[path.with_name("classes.json") for path in indexes],
            ri=RIStatistics(ood_datasets=list(SIZES), source_groups=source_groups, **STATISTICS),
            real_labels=[],
            groups={},
            scores=[],
            conditions="protocol paper",
            outputs=outputs,
        )
        return pd.read_csv(outputs["samples"]), pd.read_csv(outputs["flips"])


@pytest.fixture
def grid(tmp_path):
    """The runs of RUNS, with random answers."""
    rng = np.random.default_rng(0)
    rows = {run: random_rows(run, rng) for run in RUNS}
    row_files = []
    for run, rows_of_run in rows.items():
        path = tmp_path / f"m/{run.target}/{run.method}/all/{run.seed}/group.parquet"
        path.parent.mkdir(parents=True)
        rows_of_run[STORED].to_parquet(path)
        row_files.append(path)
    grid = EvaluatedGrid(tmp_path, rows, row_files)
    for dataset, index in grid.indexes().items():
        path = grid.index_path(dataset)
        path.parent.mkdir(parents=True)
        photos = [f"{dataset} {row}" for row in range(len(index))]
        index = index.assign(source_id=index["object_id"], photo_sha256=photos)
        index[["object_id", "source_id", "label", "photo_sha256"]].to_parquet(path)
        write_json(path.with_name("classes.json"), SPACE.to_json())
    return grid


def slow_error(confidence, is_correct, bins=15):
    """Expected calibration error in percent bin by bin, as it is defined."""
    total = 0.0
    for number in range(bins):
        low = number / bins
        high = (number + 1) / bins
        images_in_bin = [i for i, c in enumerate(confidence) if low <= c < high or (c == high == 1)]
        if images_in_bin:
            accuracy = np.mean([is_correct[i] for i in images_in_bin])
            mean_confidence = np.mean([float(confidence[i]) for i in images_in_bin])
            share = len(images_in_bin) / len(confidence)
            total += share * abs(accuracy - mean_confidence)
    return 100 * total


def test_shares_are_counts_and_their_difference_is_the_change_of_accuracy(grid):
    table, _ = grid.sample_tables()
    accuracies = accuracy_table(grid.counts())
    accuracy = accuracies.set_index(["method", "target", "seed", "dataset"])["accuracy"]
    assert len(table) == 8 * 3
    assert set(table["conditions"]) == {"protocol paper"}
    for line in table.itertuples():
        run = TunedRun(line.method, line.target, line.seed)
        is_of_dataset = grid.pretrained["dataset"] == line.dataset
        before = grid.pretrained[is_of_dataset].reset_index()
        after = grid.rows[run][is_of_dataset].reset_index()
        agreeing = sum(
            prediction_before == prediction_after
            for prediction_before, prediction_after in zip(
                before["prediction"], after["prediction"], strict=True
            )
        )
        assert line.agreement == pytest.approx(100 * agreeing / SIZES[line.dataset], abs=1e-5)
        change = accuracy.loc[(*run, line.dataset)] - accuracy.loc[(*PRETRAINED, line.dataset)]
        assert line.wrong_to_right - line.right_to_wrong == pytest.approx(change, abs=1e-5)
        assert line.n == SIZES[line.dataset]
        assert line.right_to_wrong > 0
        error = slow_error(after["confidence"], after["label"] == after["prediction"])
        assert line.ece_after == pytest.approx(error, abs=1e-5)


# Source groups by the names of the tests' cases.
SOURCE_GROUPS = {
    "all": None,
    "two share": {"a": "g", "c": "g"},
    "all share": {"a": "g", "b": "g", "c": "g"},
}
# By case, the images of `c` that count for a target.
IMAGES_OF_C = {
    "all": {"a": 12, "b": 12},
    "two share": {"a": 6, "b": 12},
    "all share": {"a": 6, "b": 2},
}


def agreement_of_method(grid, method, is_counted):
    """Mean agreement of a method in percent over runs and the other datasets.

    Args:
        is_counted: (rows,) whether each row counts, from a dataset and a target.
    """
    agreements_of_runs = []
    for run in runs_of_method(method):
        is_same = grid.pretrained["prediction"] == grid.rows[run]["prediction"]
        others = sorted(set(SIZES) - {run.target})
        agreements = [100 * is_same[is_counted(dataset, run.target)].mean() for dataset in others]
        agreements_of_runs.append(np.mean(agreements))
    return np.mean(agreements_of_runs)


@pytest.mark.parametrize("case", SOURCE_GROUPS)
def test_leak_free_means_are_of_the_objects_that_each_target_leaves(grid, case):
    """By hand. A target leaves a part of every dataset that shares sources with it.

    Each target leaves another part.
    """
    groups = SOURCE_GROUPS[case]
    rows = grid.pretrained

    def is_counted(dataset, target):
        is_of_dataset = rows["dataset"] == dataset
        if groups is None or not {target, dataset} <= groups.keys():
            return is_of_dataset
        objects_of_target = rows[rows["dataset"] == target]["object_id"]
        return is_of_dataset & ~rows["object_id"].isin(objects_of_target)

    _, flips = grid.sample_tables(groups)
    written = flips.set_index("method")["agreement"]
    for method in ("ft", "lwf"):
        expected = agreement_of_method(grid, method, is_counted)
        assert written.loc[method] == pytest.approx(expected, abs=1e-5)
    images_of_c = {target: is_counted("c", target).sum() for target in ("a", "b")}
    assert images_of_c == IMAGES_OF_C[case]


@pytest.mark.parametrize("case", SOURCE_GROUPS)
def test_means_differ_by_mri_and_their_intervals_by_the_same_draws(grid, case):
    groups = SOURCE_GROUPS[case]
    _, flips = grid.sample_tables(groups)
    counts = grid.counts()
    weights = object_weights(counts.objects, STATISTICS["replicates"], STATISTICS["seed"])
    ood = ood_accuracies(counts, weights, source_groups=groups)
    mri, _ = mri_tables(ood, STATISTICS["confidence"])
    flips_and_mri = flips.merge(mri, on=["model", "method", "size"])
    assert len(flips_and_mri) == 2
    gained = flips_and_mri["wrong_to_right"] - flips_and_mri["right_to_wrong"]
    np.testing.assert_allclose(gained, flips_and_mri["mri"], atol=1e-5)


@pytest.mark.thorough
def test_intervals_equal_those_of_a_bootstrap_by_hand(grid):
    """Rows repeated as often as their object was drawn, shares recomputed from scratch."""
    _, flips = grid.sample_tables()
    before = grid.pretrained
    objects = sorted(set(before["object_id"]))  # all runs have the same
    weights = object_weights(len(objects), STATISTICS["replicates"], STATISTICS["seed"])
    replicates = []
    for draw in weights[1:]:
        times_of_object = dict(zip(objects, draw.astype(int), strict=True))
        drawn_rows = before.index.repeat(before["object_id"].map(times_of_object))
        shares = []
        for run in runs_of_method("ft"):
            was_right = before["prediction"] == before["label"]
            is_wrong = grid.rows[run]["prediction"] != before["label"]
            is_flipped = (was_right & is_wrong).loc[drawn_rows]
            share_of_dataset = is_flipped.groupby(before["dataset"].loc[drawn_rows]).mean()
            shares.append(share_of_dataset.drop(run.target).mean())
        replicates.append(100 * np.mean(shares))
    low, high = np.percentile(replicates, [5, 95])
    line = flips.set_index("method").loc["ft"]
    assert line["right_to_wrong_low"] == pytest.approx(low, abs=1e-5)
    assert line["right_to_wrong_high"] == pytest.approx(high, abs=1e-5)


def test_means_are_right_of_objects_with_more_images_than_16_bits_can_count():
    images = 65_536
    object_of_image = np.zeros(images, int)
    objects = {"a": DatasetObjects(object_of_image, pd.Index(["x"]))}
    statistics = RIStatistics(ood_datasets=["a"], source_groups=None, **STATISTICS)
    resampling = ResampledObjects.of(objects, {}, statistics)
    sums = resampling.sum_by_object("a", [np.arange(images) % 2])
    means = resampling.resampled_means("a", resampling.weights, sums, ALL_INDICES)
    assert means == pytest.approx(images // 2 / images)


def test_what_all_objects_share_has_no_spread(grid):
    """A run that repeats the pretrained one agrees on every image, whatever is drawn."""
    row_files = []
    for target, method in (("none", "pretrained"), ("a", "ft")):
        path = grid.folder / f"same/m/{target}/{method}/all/0/group.parquet"
        path.parent.mkdir(parents=True)
        grid.pretrained.assign(method=method).to_parquet(path)
        row_files.append(path)
    _, flips = grid.sample_tables(row_files=row_files)
    line = flips.iloc[0]
    for column in ("agreement", "agreement_low", "agreement_high"):
        assert line[column] == 100
    for column in ("right_to_wrong_low", "right_to_wrong_high", "wrong_to_right"):
        assert line[column] == 0


def test_calibration_error_of_known_cases():
    half = np.full(1000, 0.5)
    assert calibration_error(half, np.arange(1000) < 500) == 0, "perfectly calibrated"
    assert calibration_error(np.ones(10), np.zeros(10, bool)) == 100, "sure and always wrong"
    assert calibration_error(np.ones(10), np.ones(10, bool)) == 0, "sure and always right"
    # Bins of width 1/15: 0.31 and 0.32 share one (accuracy 1/2), 0.9 is alone:
    # (|1 - 0.63| + |0 - 0.9|) / 3.
    confidence = np.array([0.31, 0.32, 0.9])
    is_correct = np.array([True, False, False])
    assert calibration_error(confidence, is_correct) == pytest.approx(100 * (0.37 + 0.9) / 3)
    # 0.54 and 0.59 share a bin of width 1/15, the others are alone:
    # (|1 - 0.5| + |1 - 1.13| + |1 - 0.61|) / 4. No other number of bins gives that.
    confidence = np.array([0.5, 0.54, 0.59, 0.61])
    is_correct = np.array([True, False, True, True])
    assert calibration_error(confidence, is_correct) == pytest.approx(25.5)
    for bins in range(4, 41):
        if bins != 15:
            assert abs(slow_error(confidence, is_correct, bins) - 25.5) > 4
    # What is too sure on one half and too unsure on the other does not cancel out between bins.
    assert calibration_error(np.array([0.9, 0.1]), np.array([False, True])) == pytest.approx(90)
    assert calibration_error(np.array([1.0000001], np.float32), np.array([False])) == 100, (
        "rounded past 1"
    )


# Parameters of the beta distribution from which confidences are drawn.
DISTRIBUTIONS = {"any": (1, 1), "sure": (20, 1), "unsure": (1, 8)}


@pytest.mark.parametrize("n", [1, 97])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_floor_is_the_mean_error_of_a_perfectly_calibrated_model(n, distribution):
    rng = np.random.default_rng(n)
    alpha, beta = DISTRIBUTIONS[distribution]
    confidence = rng.beta(alpha, beta, n)
    errors = [calibration_error(confidence, rng.random(n) < confidence) for _ in range(2000)]
    noise = 4 * np.std(errors) / np.sqrt(len(errors))
    difference = calibration_floor(confidence) - np.mean(errors)
    assert -noise <= difference <= noise + 0.02 * np.mean(errors)


def test_floors_of_known_cases():
    assert calibration_floor(np.array([0.3])) == pytest.approx(100 * 2 * 0.3 * 0.7), (
        "0.7 or 0.3 off"
    )
    assert calibration_floor(np.full(2, 0.5)) == pytest.approx(25), (
        "half the draws are 0.5 off, the others 0"
    )
    assert calibration_floor(np.array([0.3, 0.5, 0.5])) == pytest.approx((42 + 2 * 25) / 3)
    assert calibration_floor(np.array([0.0, 1.0, 1.0])) == 0
    assert calibration_floor(np.float32([1.0000001])) == 0
    of_normal = 100 * np.sqrt(2 * 0.09 / np.pi / 50_000)
    assert calibration_floor(np.full(50_000, 0.9)) == pytest.approx(of_normal, rel=1e-3)


def test_tables_have_the_floors_before_and_after(grid):
    table, _ = grid.sample_tables()
    for line in table.itertuples():
        is_of_dataset = grid.pretrained["dataset"] == line.dataset
        before = grid.pretrained[is_of_dataset]
        after = grid.rows[line.method, line.target, line.seed][is_of_dataset]
        floor_before = calibration_floor(before["confidence"].to_numpy())
        floor_after = calibration_floor(after["confidence"].to_numpy())
        assert line.ece_floor_before == pytest.approx(floor_before, abs=1e-5)
        assert line.ece_floor_after == pytest.approx(floor_after, abs=1e-5)
        assert line.ece_floor_before > 0
        assert line.ece_floor_after > 0


def test_runs_on_different_images_are_refused(grid):
    path = grid.row_files[-1]
    pd.read_parquet(path).iloc[:-1].to_parquet(path)
    with pytest.raises(UserError, match=r"pretrained/all/0 and m/b/lwf/all/1 .* of c;"):
        grid.sample_tables()


def test_leak_free_means_are_without_images_that_are_identical_to_one_of_the_target(grid):
    """b's first image is identical to a's.

    Means over targets leave it out where a is the target, and reversed.
    """
    # given: objects as before, since those of a and b overlap in other images too
    for dataset in SIZES:
        index = pd.read_parquet(grid.index_path(dataset))
        photos = [f"{dataset}/{row}" for row in range(len(index))]
        if dataset in ("a", "b"):
            photos[0] = "of both"
        with_photos = index.assign(source_id=photos, photo_sha256=photos)
        with_photos.to_parquet(grid.index_path(dataset))
    rows = grid.pretrained

    def is_counted(dataset, target):
        is_of_dataset = rows["dataset"] == dataset
        if dataset == "c":
            return is_of_dataset
        return is_of_dataset & (rows["row"] != 0)

    # when
    _, flips = grid.sample_tables(source_groups={})
    # then
    expected = agreement_of_method(grid, "ft", is_counted)
    assert flips.set_index("method").loc["ft", "agreement"] == pytest.approx(expected, abs=1e-5)
