"""Top-5, likelihood and Brier score from logits to tables against plain NumPy.

ReaL accuracy is compared with numbers by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from test_evaluate import scores_of

from rib.analyses.samples.scores import SCORES, compared_scores, real_accuracies, real_answers
from rib.analyses.samples.tables import sample_tables
from rib.base.errors import UserError
from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace, imagenet_wnids, read_real_labels, read_timm_list
from rib.statistics.bootstrap import object_weights
from rib.statistics.counts import RowFiles
from rib.statistics.statistics_settings import RIStatistics
from tiny.tables.tables import write

CLASS_NAMES = tuple("abcdefgh")
# By class, others that are right for its images, too.
ALSO_RIGHT = ((1,), (), (), (7, 0), (), (), (), ())
SPACES = {
    "many": LabelSpace(CLASS_NAMES, tuple((i,) for i in range(8)), CLASS_NAMES, 8, ALSO_RIGHT),
    "few": LabelSpace(CLASS_NAMES[:4], ((0, 4), (1,), (2,), (3,)), CLASS_NAMES[:4], 8),
}
SIZES = {"many": 40, "few": 30}
STATISTICS = {"replicates": 200, "confidence": 0.9, "seed": 3}
SCORES_OF_IMAGES = ("top1", "top5", "nll", "brier")


class TunedRun(NamedTuple):
    """A run of the grid, all of whose runs are of one model, size and seed."""

    target: str
    method: str


PRETRAINED = TunedRun("none", "pretrained")
RUNS = [PRETRAINED, TunedRun("few", "ft"), TunedRun("many", "ft"), TunedRun("few", "lwf")]


def plain_scores(logits, label, space):
    """Scores of an image, by name, from the network's outputs."""
    class_logits = np.array([max(logits[i] for i in row) for row in space.indices], np.float64)
    probabilities = np.exp(class_logits) / np.exp(class_logits).sum()
    best_first = list(np.argsort(-class_logits))
    right_classes = {label}
    if space.also:
        right_classes.update(space.also[label])
    top5 = np.nan
    if len(class_logits) > 5:
        top5 = 100.0 * bool(right_classes & set(best_first[:5]))
    is_label = np.arange(len(probabilities)) == label
    return {
        "top1": 100.0 * (best_first[0] in right_classes),
        "top5": top5,
        "nll": -np.log(probabilities[label]),
        "brier": ((probabilities - is_label) ** 2).sum(),
    }


def object_of_image(i):
    """The object that the image in row i of an index shows: two images show the same."""
    return f"o{i // 2}"


def validation_image(number):
    """The name of an image of ImageNet's validation set."""
    return f"ILSVRC2012_val_{number:08}.JPEG"


def write_index(folder, dataset, labels):
    """Write the index and the classes of a dataset as its prepare job does."""
    prepared = folder / f"prepare/{dataset}/32px"
    prepared.mkdir(parents=True)
    images = range(SIZES[dataset])
    index = {
        "object_id": [object_of_image(i) for i in images],
        "image_id": [validation_image(i + 1) for i in images],
        "label": labels,
        "place": [f"place {i % 3}" for i in images],
        "photo_sha256": [f"{dataset} {i}" for i in images],
    }
    pd.DataFrame(index).to_parquet(prepared / "index.parquet")
    write_json(prepared / "classes.json", SPACES[dataset].to_json())


def rows_of(logits, dataset, labels):
    """Rows of a run on a dataset, as they are stored."""
    (scores,), _ = scores_of([logits], SPACES[dataset], labels, 16)
    columns = {"dataset": dataset, "row": range(SIZES[dataset])}
    for column, scores_of_images in scores.items():
        columns[column] = scores_of_images.numpy()
    halves = dict.fromkeys(("log_prob", "brier", "confidence"), np.float16)
    return pd.DataFrame(columns).astype(halves)


@dataclass(frozen=True)
class ScoredGrid:
    """Files of rows, indexes and label spaces of a small grid, and what its scores should be."""

    folder: Path
    row_files: Mapping[TunedRun, Path]
    plain_scores: Mapping[tuple[TunedRun, str], pd.DataFrame]  # by run and dataset, of each image

    def score_tables(self, real_labels=(), groups=None, scores=()):
        """The tables of scores that `sample_tables` makes of the grid, by name.

        Args:
            real_labels, groups, scores: as for `sample_tables`.
        """
        names = ["samples", "flips", "scores", "mean_scores"]
        if scores:
            names.append("ri_scores")
        outputs = {name: self.folder / f"{name}.csv" for name in names}
        indexes = sorted(self.folder.glob("prepare/*/*/index.parquet"))
        write(
            sample_tables,
            files=RowFiles(rows=list(self.row_files.values()), indexes=indexes),
            classes=sorted(self.folder.glob("prepare/*/*/classes.json")),
            ri=RIStatistics(ood_datasets=list(SPACES), source_groups=None, **STATISTICS),
            real_labels=real_labels,
            groups=groups or {},
            scores=scores,
            conditions="paper",
            outputs=outputs,
        )
        return {name: pd.read_csv(path) for name, path in outputs.items()}

    def images_of_run(self, run, dataset):
        """The rows of a run on a dataset, with label, object and place of each image."""
        rows = pd.read_parquet(self.row_files[run])
        index = pd.read_parquet(self.folder / f"prepare/{dataset}/32px/index.parquet")
        rows_on_dataset = rows[rows["dataset"] == dataset].reset_index(drop=True)
        return pd.concat([rows_on_dataset.drop(columns="label", errors="ignore"), index], axis=1)


@pytest.fixture
def grid(tmp_path):
    """The runs of RUNS, with random logits."""
    rng = np.random.default_rng(0)
    labels_of = {
        dataset: rng.integers(0, len(space.keys), SIZES[dataset])
        for dataset, space in SPACES.items()
    }
    row_files = {}
    expected = {}
    for run in RUNS:
        tables = []
        for dataset, labels in labels_of.items():
            logits = rng.normal(scale=2, size=(SIZES[dataset], 8)).astype(np.float32)
            tables.append(rows_of(logits, dataset, labels).assign(method=run.method))
            expected[run, dataset] = pd.DataFrame(
                [
                    plain_scores(logits_of_image, label, SPACES[dataset])
                    for logits_of_image, label in zip(logits, labels, strict=True)
                ]
            )
        row_files[run] = tmp_path / f"m/{run.target}/{run.method}/all/0/group.parquet"
        row_files[run].parent.mkdir(parents=True)
        pd.concat(tables).to_parquet(row_files[run])
    for dataset, labels in labels_of.items():
        write_index(tmp_path, dataset, labels)
    return ScoredGrid(tmp_path, row_files, expected)


def draws_of_objects():
    """How often each replicate of the bootstrap counts each object, by object; the first, once."""
    objects = sorted({object_of_image(i) for i in range(max(SIZES.values()))})
    weights = object_weights(len(objects), STATISTICS["replicates"], STATISTICS["seed"])
    return [dict(zip(objects, draw.astype(int), strict=True)) for draw in weights]


def test_scores_of_a_run_are_those_of_its_logits(grid):
    table = grid.score_tables()["scores"]
    assert len(table) == 3 * 2
    assert set(table["conditions"]) == {"paper"}
    for line in table.to_dict("records"):
        dataset = line["dataset"]
        run = TunedRun(line["target"], line["method"])
        means_before = grid.plain_scores[PRETRAINED, dataset].mean()
        means_after = grid.plain_scores[run, dataset].mean()
        assert line["n"] == SIZES[dataset]
        for score in SCORES_OF_IMAGES:
            before = means_before[score]
            after = means_after[score]
            written = [line[f"{score}_{when}"] for when in ("before", "after", "change")]
            expected = [before, after, after - before]
            assert written == pytest.approx(expected, abs=2e-3, nan_ok=True), score
    assert table.set_index("dataset").loc["few", "top5_before"].isna().all()
    assert table["top5_before"].notna().any()
    assert table[["real_before", "real_after", "n_real"]].isna().all(axis=None)


def test_means_are_over_runs_and_the_other_datasets_with_intervals_over_objects(grid):
    # when
    line = grid.score_tables()["mean_scores"].set_index("method").loc["ft"]
    # then: the mean over the two runs, each of which has one other dataset
    changes = {}
    for target, other in (("few", "many"), ("many", "few")):
        before = grid.plain_scores[PRETRAINED, other]
        changes[other] = grid.plain_scores[TunedRun(target, "ft"), other] - before
    mean_changes = {dataset: change.mean() for dataset, change in changes.items()}
    for score in SCORES_OF_IMAGES:
        expected = np.mean([means[score] for means in mean_changes.values()])
        written = line[f"{score}_change"]
        difference = line[f"{score}_after"] - line[f"{score}_before"]
        assert written == pytest.approx(expected, abs=2e-3, nan_ok=True)
        assert difference == pytest.approx(expected, abs=2e-3, nan_ok=True)
    assert line[["top5_change", "top5_change_low"]].isna().all(), (
        "one of the datasets has four classes"
    )
    # and: of each draw, images are repeated as often as their object was drawn
    _once, *draws = draws_of_objects()
    drawn_changes = []
    for draw in draws:
        changes_on_datasets = []
        for dataset, n in SIZES.items():
            repeats = [draw[object_of_image(i)] for i in range(n)]
            changes_on_datasets.append(np.repeat(changes[dataset]["brier"], repeats).mean())
        drawn_changes.append(np.mean(changes_on_datasets))
    low, high = np.percentile(drawn_changes, [5, 95])
    assert line["brier_change_low"] == pytest.approx(low, abs=2e-3)
    assert line["brier_change_high"] == pytest.approx(high, abs=2e-3)


def test_real_labels_of_the_columns_are_timms(grid):
    """The rows' classes are ImageNet's first eight.

    A few of the first images have some of them among their ReaL labels.
    """
    # given
    classes = set(range(8))
    real_labels = [(0, 3), (), (500,), *[(i % 8,) for i in range(37)]]
    images = pd.Series([validation_image(i + 1) for i in range(40)])
    rows = pd.read_parquet(grid.row_files[PRETRAINED])
    rows = rows[rows["dataset"] == "many"]
    # when
    answers = real_answers("many", images, SPACES["many"], real_labels)
    before, after, images_with_labels = real_accuracies(rows, rows, answers)
    # then
    labelled = [i for i in range(40) if classes & set(real_labels[i])]
    is_right = [rows["prediction"].iloc[i] in real_labels[i] for i in labelled]
    assert before == pytest.approx(100 * np.mean(is_right))
    assert after == pytest.approx(100 * np.mean(is_right))
    assert images_with_labels == 38
    assert len(labelled) == 38
    # and: of the labels of timm
    table = grid.score_tables(real_labels=["many"])["scores"]
    labels_of_timm = read_real_labels()[:40]
    images_of_timm = sum(bool(classes & set(labels)) for labels in labels_of_timm)
    assert table[table["dataset"] == "few"]["n_real"].isna().all()
    assert (table[table["dataset"] == "many"]["n_real"].fillna(0) == images_of_timm).all()


def test_real_accuracy_by_hand():
    """Several labels, any of which is right; none, which leaves the image out.

    And a class of several outputs.
    """
    # given
    space = LabelSpace(("a", "b", "c"), ((0, 9), (1,), (2,)), ("a", "b", "c"), 1000)
    images = pd.Series([validation_image(number) for number in (1, 2, 3, 5)])
    real_labels = [[1, 2], [], [9], [0], [0, 777]]
    before = pd.DataFrame({"prediction": [1, 0, 0, 1]})
    after = pd.DataFrame({"prediction": [2, 1, 1, 2]})
    # when
    answers = real_answers("val", images, space, real_labels)
    # then
    assert answers.tolist() == [
        [False, True, True],
        [False, False, False],
        [True, False, False],
        [True, False, False],
    ]
    accuracies_and_number = real_accuracies(before, after, answers)
    assert accuracies_and_number == pytest.approx((100 * 2 / 3, 100 / 3, 3))
    assert real_accuracies(before, after, None) == (None, None, None)
    assert real_accuracies(before, after, np.zeros((4, 3), bool)) == (None, None, None)


@pytest.mark.parametrize(
    "image", ["ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG", "n01440764/7.jpg"]
)
def test_an_image_that_the_real_labels_do_not_have_is_refused(image):
    images = pd.Series([validation_image(1), image])
    with pytest.raises(UserError, match=f"val: .*'{image}'"):
        real_answers("val", images, SPACES["many"], [[0], [0], [0]])


def test_timm_has_the_published_real_labels():
    """Beyer et al. 2020: 46,837 of 50,000 images have labels, 57,553 in all."""
    labels_of_images = read_real_labels()
    assert len(labels_of_images) == 50_000
    assert sum(len(labels) > 0 for labels in labels_of_images) == 46_837
    all_labels = [label for labels in labels_of_images for label in labels]
    assert len(all_labels) == 57_553
    assert set(all_labels) <= set(range(1000))
    assert imagenet_wnids()[65] == "n01751748"
    assert read_timm_list("imagenet").keys == imagenet_wnids()


def test_accuracies_of_equal_runs_do_not_change():
    rows = pd.DataFrame(
        {
            "rank": [0, 4, 5],
            "log_prob": np.float16([-0.5, -1, -2]),
            "brier": np.float16([0.25, 1, 1.5]),
        }
    )
    of_six_classes = compared_scores(rows, rows, 6)
    assert of_six_classes.shape == (12, 3)
    by_name = dict(zip(SCORES, of_six_classes, strict=True))
    for score in SCORES_OF_IMAGES:
        assert (by_name[f"{score}_change"] == 0).all()
    assert by_name["top5_before"].tolist() == [100, 100, 0], "top-5 includes rank 4"
    of_five_classes = dict(zip(SCORES, compared_scores(rows, rows, 5), strict=True))
    assert np.isnan(of_five_classes["top5_before"]).all()


def plain_accuracy(images):
    """Accuracy in percent."""
    return 100 * (images["rank"] == 0).mean()


def plain_macro_f1(images):
    """Macro F1 in percent as it is defined, from precision and recall, class by class."""
    scores = []
    predictions = np.where(images["rank"] == 0, images["label"], images["prediction"])
    for label in sorted(set(images["label"])):
        is_label = images["label"] == label
        is_predicted = predictions == label
        true_positives = (is_label & is_predicted).sum()
        if true_positives == 0:
            scores.append(0.0)
            continue
        precision = true_positives / is_predicted.sum()
        recall = true_positives / is_label.sum()
        scores.append(2 * precision * recall / (precision + recall))
    return 100 * np.mean(scores)


def plain_worst_group(images):
    """The lowest accuracy in percent over places."""
    return 100 * (images["rank"] == 0).groupby(images["place"]).mean().min()


PLAIN = {"macro_f1": plain_macro_f1, "worst_group": plain_worst_group}
GROUPS = {"many": "place"}
SCORES_OF_FAMILY = ["macro_f1", "worst_group"]


def test_macro_f1_and_worst_group_are_those_of_plain_loops(grid):
    tables = grid.score_tables(groups=GROUPS)
    table = tables["scores"]
    for line in table.to_dict("records"):
        dataset = line["dataset"]
        run = TunedRun(line["target"], line["method"])
        images_before = grid.images_of_run(PRETRAINED, dataset)
        images_after = grid.images_of_run(run, dataset)
        for score, plain_score in PLAIN.items():
            if score == "worst_group" and dataset not in GROUPS:
                assert np.isnan(line[f"{score}_before"])
                assert np.isnan(line[f"{score}_change"])
                continue
            before = plain_score(images_before)
            after = plain_score(images_after)
            written = [line[f"{score}_{when}"] for when in ("before", "after", "change")]
            assert written == pytest.approx([before, after, after - before], abs=1e-5), score
    means = tables["mean_scores"].set_index("method")
    changes_by_method = table[table["target"] != table["dataset"]].groupby("method")
    for score in PLAIN:
        expected = changes_by_method[f"{score}_change"].mean().to_dict()
        written = means[f"{score}_change"].to_dict()
        assert written == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert means[f"{score}_change_low"].isna().all(), "no interval, since no family asks for it"


@pytest.mark.thorough
def test_ri_of_scores_has_the_intervals_of_the_draws_of_objects(grid):
    # given
    images_before = grid.images_of_run(PRETRAINED, "many")
    images_after = grid.images_of_run(TunedRun("few", "ft"), "many")

    def change_of_draw(plain_score, draw):
        drawn_before = images_before.index.repeat(images_before["object_id"].map(draw))
        drawn_after = images_after.index.repeat(images_after["object_id"].map(draw))
        score_before = plain_score(images_before.loc[drawn_before])
        return plain_score(images_after.loc[drawn_after]) - score_before

    # when
    tables = grid.score_tables(groups=GROUPS, scores=SCORES_OF_FAMILY)
    # then
    ri = tables["ri_scores"].set_index(["method", "target"])
    line = ri.loc["ft", "few"]  # RI is of `many` alone
    column_of_score = {
        plain_accuracy: "ri",
        plain_macro_f1: "ri_macro_f1",
        plain_worst_group: "ri_worst_group",
    }
    for plain_score, column in column_of_score.items():
        observed, *drawn = [change_of_draw(plain_score, draw) for draw in draws_of_objects()]
        low, high = np.percentile(drawn, [5, 95])
        written = line[[column, f"{column}_low", f"{column}_high"]].tolist()
        assert written == pytest.approx([observed, low, high], abs=1e-4), column
    means_of_ri = ri.xs("mean", level="target")
    means = tables["mean_scores"].set_index("method")
    assert means_of_ri["ri"].to_dict() == pytest.approx(means["top1_change"].to_dict(), abs=1e-4)
    assert means_of_ri["ri_macro_f1_low"].to_dict() == pytest.approx(
        means["macro_f1_change_low"].to_dict(), abs=1e-4
    )
    assert np.isnan(ri.loc["ft", "many"]["ri_worst_group"]), "the other dataset has no groups"


def test_groups_of_which_the_index_has_no_column_are_refused(grid):
    with pytest.raises(UserError, match="many: groups .*'hospital'.* place"):
        grid.score_tables(groups={"many": "hospital"})
