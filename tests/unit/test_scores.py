"""Top-5, likelihood and Brier score from logits to tables against plain NumPy.

ReaL accuracy is compared with numbers by hand.
"""

import json

import numpy as np
import pandas as pd
import pytest
from test_evaluate import scores_of

from rib.analyses.samples.scores import compared_scores, real_accuracies, real_answers
from rib.analyses.samples.settings import SampleSettings
from rib.analyses.samples.tables import sample_tables
from rib.analysis.bootstrap import object_weights
from rib.analysis.counts import RowFiles
from rib.analysis.settings import RIStatistics
from rib.base.errors import UserError
from rib.config.label_space import LabelSpace, imagenet_wnids, read_real_labels, read_timm_list
from tiny.tables import write

NAMES = tuple("abcdefgh")
ALSO = ((1,), (), (), (7, 0), (), (), (), ())
SPACES = {
    "many": LabelSpace(NAMES, tuple((i,) for i in range(8)), NAMES, 8, ALSO),
    "few": LabelSpace(NAMES[:4], ((0, 4), (1,), (2,), (3,)), NAMES[:4], 8),
}
SIZES = {"many": 40, "few": 30}
RUNS = [("none", "pretrained"), ("few", "ft"), ("many", "ft"), ("few", "lwf")]
STATISTICS = {"replicates": 200, "confidence": 0.9, "seed": 3}


def plain(logits, label, space):
    """Scores of an image from the network's outputs.

    They are top-1, top-5, negative log-likelihood and Brier score.
    """
    scores = np.array([max(logits[i] for i in row) for row in space.indices], np.float64)
    p = np.exp(scores) / np.exp(scores).sum()
    order = list(np.argsort(-scores))
    right = {label, *(space.also[label] if space.also else ())}
    top5 = 100.0 * bool(right & set(order[:5])) if len(scores) > 5 else np.nan
    brier = sum((p[c] - (c == label)) ** 2 for c in range(len(p)))
    return [100.0 * (order[0] in right), top5, -np.log(p[label]), brier]


@pytest.fixture
def grid(tmp_path):
    """Files of rows, indexes and label spaces of a small grid.

    With plain scores by run and dataset.
    """
    rng, expected, rows = np.random.default_rng(0), {}, []
    labels = {name: rng.integers(0, len(space.keys), SIZES[name]) for name, space in SPACES.items()}
    for target, method in RUNS:
        parts = []
        for name, space in SPACES.items():
            logits = rng.normal(scale=2, size=(SIZES[name], 8)).astype(np.float32)
            (found,), _ = scores_of([logits], space, labels[name], 16)
            part = {key: values.numpy() for key, values in found.items()}
            part |= {
                key: part[key].astype(np.float16) for key in ("log_prob", "brier", "confidence")
            }
            parts.append(pd.DataFrame({"dataset": name, "row": range(SIZES[name]), **part}))
            pairs = zip(logits, labels[name], strict=True)
            expected[target, method, name] = np.array(
                [plain(line, label, space) for line, label in pairs]
            )
        rows.append(tmp_path / f"m/{target}/{method}/all/0/group.parquet")
        rows[-1].parent.mkdir(parents=True)
        pd.concat(parts).to_parquet(rows[-1])
    for name, space in SPACES.items():
        folder = tmp_path / f"prepare/{name}/32px"
        folder.mkdir(parents=True)
        ids = [f"o{i // 2}" for i in range(SIZES[name])]
        images = [f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(SIZES[name])]
        index = {"object_id": ids, "image_id": images, "label": labels[name]}
        index["place"] = [f"place {i % 3}" for i in range(SIZES[name])]
        pd.DataFrame(index).to_parquet(folder / "index.parquet")
        (folder / "classes.json").write_text(json.dumps(space.to_json()))
    return rows, expected


def written(grid, tmp_path, real_labels=(), groups=None, scores=()):
    indexes, classes = (
        sorted(tmp_path.glob(f"prepare/*/*/{name}")) for name in ("index.parquet", "classes.json")
    )
    names = ["samples", "flips", "scores", "mean_scores"]
    if scores:
        names.append("ri_scores")
    outputs = {name: tmp_path / f"{name}.csv" for name in names}
    settings = SampleSettings(
        ri=RIStatistics(ood_datasets=list(SPACES), source_groups=None, **STATISTICS),
        real_labels=list(real_labels),
        groups=groups or {},
        scores=list(scores),
        conditions="paper",
        code="",
    )
    rows, _ = grid
    write(
        sample_tables,
        files=RowFiles(rows=rows, indexes=indexes),
        classes=classes,
        settings=settings,
        conditions=settings.conditions,
        outputs=outputs,
    )
    return [pd.read_csv(outputs[name]) for name in names[2:]]


PARTS = ("top1", "top5", "nll", "brier")


def test_scores_of_a_run_are_those_of_its_logits(grid, tmp_path):
    table, _ = written(grid, tmp_path)
    assert len(table) == 3 * 2 and set(table["conditions"]) == {"paper"}
    for line in table.to_dict("records"):
        before = grid[1]["none", "pretrained", line["dataset"]].mean(axis=0)
        after = grid[1][line["target"], line["method"], line["dataset"]].mean(axis=0)
        assert line["n"] == SIZES[line["dataset"]]
        for name, was, now in zip(PARTS, before, after, strict=True):
            found = [line[f"{name}_{part}"] for part in ("before", "after", "change")]
            assert found == pytest.approx([was, now, now - was], abs=2e-3, nan_ok=True), name
    assert (
        table.set_index("dataset").loc["few", "top5_before"].isna().all()
        and table["top5_before"].notna().any()
    )
    assert table[["real_before", "real_after", "n_real"]].isna().all(axis=None)


def test_means_are_over_runs_and_the_other_datasets_with_intervals_over_objects(grid, tmp_path):
    _, means = written(grid, tmp_path)
    before = {name: grid[1]["none", "pretrained", name] for name in SPACES}
    changes = {
        name: grid[1][target, "ft", name] - before[name]
        for target, name in (("few", "many"), ("many", "few"))
    }
    line = means.set_index("method").loc["ft"]
    for place, name in enumerate(PARTS):
        expected = np.mean([part[:, place].mean() for part in changes.values()])
        assert line[f"{name}_change"] == pytest.approx(expected, abs=2e-3, nan_ok=True)
        assert line[f"{name}_after"] - line[f"{name}_before"] == pytest.approx(
            expected, abs=2e-3, nan_ok=True
        )
    assert line[["top5_change", "top5_change_low"]].isna().all(), (
        "one of the datasets has four classes"
    )
    objects = sorted({f"o{i // 2}" for n in SIZES.values() for i in range(n)})
    drawn = []
    for weights in object_weights(len(objects), STATISTICS["replicates"], STATISTICS["seed"])[1:]:
        times = dict(zip(objects, weights.astype(int), strict=True))
        repeats = {name: [times[f"o{i // 2}"] for i in range(n)] for name, n in SIZES.items()}
        drawn.append(
            np.mean(
                [np.repeat(changes[name], repeats[name], axis=0)[:, 3].mean() for name in SPACES]
            )
        )
    interval = tuple(np.percentile(drawn, [5, 95]))
    assert (line["brier_change_low"], line["brier_change_high"]) == pytest.approx(
        interval, abs=2e-3
    )


def test_real_labels_of_the_columns_are_timms(grid, tmp_path):
    """The rows' classes are ImageNet's first eight.

    A few of the first images have some of them among their ReaL labels.
    """
    known = [(0, 3), (), (500,), *[(i % 8,) for i in range(37)]]
    answers = real_answers(
        "many",
        pd.Series([f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in range(40)]),
        SPACES["many"],
        known,
    )
    rows = pd.read_parquet(grid[0][0])
    rows = rows[rows["dataset"] == "many"]
    labelled = [i for i in range(40) if set(known[i]) & set(range(8))]
    right = [rows["prediction"].iloc[i] in known[i] for i in labelled]
    found = real_accuracies(rows, rows, answers)
    assert (
        found == pytest.approx((100 * np.mean(right), 100 * np.mean(right), 38))
        and len(labelled) == 38
    )
    table, _ = written(grid, tmp_path, ["many"])
    own = read_real_labels()[:40]
    number = sum(bool(set(row) & set(range(8))) for row in own)
    assert table[table["dataset"] == "few"]["n_real"].isna().all()
    assert (table[table["dataset"] == "many"]["n_real"].fillna(0) == number).all()


def test_real_accuracy_by_hand():
    """Several labels, any of which is right; none, which leaves the image out.

    And a class of several outputs.
    """
    space = LabelSpace(("a", "b", "c"), ((0, 9), (1,), (2,)), ("a", "b", "c"), 1000)
    ids = pd.Series([f"ILSVRC2012_val_{i:08}.JPEG" for i in (1, 2, 3, 5)])
    answers = real_answers("val", ids, space, [[1, 2], [], [9], [0], [0, 777]])
    assert answers.tolist() == [
        [False, True, True],
        [False] * 3,
        [True, False, False],
        [True, False, False],
    ]
    before, after = (pd.DataFrame({"prediction": own}) for own in ([1, 0, 0, 1], [2, 1, 1, 2]))
    assert real_accuracies(before, after, answers) == pytest.approx((100 * 2 / 3, 100 / 3, 3))
    assert real_accuracies(before, after, None) == (None, None, None)
    assert real_accuracies(before, after, np.zeros((4, 3), bool)) == (None, None, None)


@pytest.mark.parametrize(
    "image", ["ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG", "n01440764/7.jpg"]
)
def test_an_image_that_the_real_labels_do_not_have_is_refused(image):
    ids = pd.Series(["ILSVRC2012_val_00000001.JPEG", image])
    with pytest.raises(
        UserError, match=f"datasets.yaml, val: the ReaL labels have no image '{image}'"
    ):
        real_answers("val", ids, SPACES["many"], [[0], [0], [0]])


def test_timm_has_the_published_real_labels():
    """Beyer et al. 2020: 46,837 of 50,000 images have labels, 57,553 in all."""
    known = read_real_labels()
    assert (
        len(known) == 50_000 and sum(map(bool, known)) == 46_837 and sum(map(len, known)) == 57_553
    )
    assert {index for row in known for index in row} <= set(range(1000))
    assert (
        imagenet_wnids()[65] == "n01751748" and read_timm_list("imagenet").keys == imagenet_wnids()
    )


def test_accuracies_of_equal_runs_do_not_change():
    rows = pd.DataFrame(
        {
            "rank": [0, 4, 5],
            "log_prob": np.float16([-0.5, -1, -2]),
            "brier": np.float16([0.25, 1, 1.5]),
        }
    )
    found = compared_scores(rows, rows, 6)
    assert found[:, :].shape == (12, 3) and (found[2::3] == 0).all()
    assert found[3].tolist() == [100, 100, 0], "top-5 includes rank 4"
    assert np.isnan(compared_scores(rows, rows, 5)[3]).all()


def images_of_run(grid, tmp_path, run, dataset):
    """The rows of a run on a dataset, with label, object and place of each image."""
    (path,) = [path for path in grid[0] if path.parts[-6:-3] == ("m", *run)]
    rows = pd.read_parquet(path)
    index = pd.read_parquet(tmp_path / f"prepare/{dataset}/32px/index.parquet")
    rows = rows[rows["dataset"] == dataset].reset_index(drop=True)
    return pd.concat([rows.drop(columns="label", errors="ignore"), index], axis=1)


def plain_macro_f1(images):
    """Macro F1 in percent as it is defined, from precision and recall, class by class."""
    scores = []
    predictions = np.where(images["rank"] == 0, images["label"], images["prediction"])
    for label in sorted(set(images["label"])):
        is_label, is_predicted = images["label"] == label, predictions == label
        both = (is_label & is_predicted).sum()
        if both == 0:
            scores.append(0.0)
            continue
        precision, recall = both / is_predicted.sum(), both / is_label.sum()
        scores.append(2 * precision * recall / (precision + recall))
    return 100 * np.mean(scores)


def plain_worst_group(images):
    """The lowest accuracy in percent over places."""
    return 100 * (images["rank"] == 0).groupby(images["place"]).mean().min()


PLAIN = {"macro_f1": plain_macro_f1, "worst_group": plain_worst_group}
GROUPS = {"many": "place"}
ASKED = ["macro_f1", "worst_group"]


def test_macro_f1_and_worst_group_are_those_of_plain_loops(grid, tmp_path):
    table, means = written(grid, tmp_path, groups=GROUPS)
    for line in table.to_dict("records"):
        dataset = line["dataset"]
        for name, plain_score in PLAIN.items():
            if name == "worst_group" and dataset not in GROUPS:
                assert np.isnan(line[f"{name}_before"]) and np.isnan(line[f"{name}_change"])
                continue
            before, after = (
                plain_score(images_of_run(grid, tmp_path, run, dataset))
                for run in (("none", "pretrained"), (line["target"], line["method"]))
            )
            found = [line[f"{name}_{when}"] for when in ("before", "after", "change")]
            assert found == pytest.approx([before, after, after - before], abs=1e-5), name
    by_method = table[table["target"] != table["dataset"]].groupby("method")
    for name in PLAIN:
        expected = by_method[f"{name}_change"].mean()
        assert means.set_index("method")[f"{name}_change"].to_dict() == pytest.approx(
            expected.to_dict(), abs=1e-5, nan_ok=True
        )
        assert means[f"{name}_change_low"].isna().all(), "no interval, since no family asks for it"


def test_ri_of_scores_has_the_intervals_of_the_draws_of_objects(grid, tmp_path):
    _, means, ri = written(grid, tmp_path, groups=GROUPS, scores=ASKED)
    line = ri.set_index(["method", "target"]).loc["ft", "few"]  # RI is of `many` alone
    runs = {
        when: images_of_run(grid, tmp_path, run, "many")
        for when, run in (("before", ("none", "pretrained")), ("after", ("few", "ft")))
    }
    plain = {**PLAIN, "accuracy": lambda images: 100 * (images["rank"] == 0).mean()}
    objects = sorted({f"o{i // 2}" for n in SIZES.values() for i in range(n)})
    draws = object_weights(len(objects), STATISTICS["replicates"], STATISTICS["seed"])
    for name, column in (
        ("accuracy", "ri"),
        ("macro_f1", "ri_macro_f1"),
        ("worst_group", "ri_worst_group"),
    ):
        changes = []
        for weights in draws:
            times = dict(zip(objects, weights.astype(int), strict=True))
            scores = {}
            for when, images in runs.items():
                drawn = images.loc[images.index.repeat(images["object_id"].map(times))]
                scores[when] = plain[name](drawn)
            changes.append(scores["after"] - scores["before"])
        interval = np.percentile(changes[1:], [5, 95])
        found = line[[column, f"{column}_low", f"{column}_high"]].tolist()
        assert found == pytest.approx([changes[0], *interval], abs=1e-4), name
    mean = ri[ri["target"] == "mean"].set_index("method")
    assert mean["ri"].to_dict() == pytest.approx(
        means.set_index("method")["top1_change"].to_dict(), abs=1e-4
    )
    assert mean["ri_macro_f1_low"].to_dict() == pytest.approx(
        means.set_index("method")["macro_f1_change_low"].to_dict(), abs=1e-4
    )
    only_few = ri.set_index(["method", "target"]).loc["ft", "many"]
    assert np.isnan(only_few["ri_worst_group"]), "the other dataset has no groups"


def test_groups_of_which_the_index_has_no_column_are_refused(grid, tmp_path):
    message = "datasets.yaml, many: groups is 'hospital', which its index lacks; choose from place"
    with pytest.raises(UserError, match=message):
        written(grid, tmp_path, groups={"many": "hospital"})
