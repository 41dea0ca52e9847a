"""Lines against NumPy's fit on logits, and effective robustness against its definition."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.effective_robustness.baselines import baselines as published
from rib.analyses.effective_robustness.settings import BaselineAccuracies
from rib.analyses.effective_robustness.tables import (
    Line,
    line_table,
    robustness_table,
    robustness_tables,
)
from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.grid import resolve_grid
from rib.config.schema import validated
from tiny.tables import write

INSIDE = np.array([58.0, 66.0, 70.0, 74.5, 79.0, 84.0])
OUTSIDE = np.array([45.0, 52.0, 59.0, 62.0, 69.0, 72.5])


def logit(percent):
    return np.log(percent / (100 - percent))


def percent(logits):
    return 100 / (1 + np.exp(-logits))


def test_the_line_is_numpys_fit_between_logits():
    line = Line(INSIDE, OUTSIDE)
    slope, intercept = np.polyfit(logit(INSIDE), logit(OUTSIDE), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line.correlation == pytest.approx(np.corrcoef(logit(INSIDE), logit(OUTSIDE))[0, 1])
    assert line.at(np.array([75.0])) == pytest.approx(percent(intercept + slope * logit(75.0)))
    assert (line.models, line.lowest, line.highest) == (6, 58, 84)


def test_its_interval_is_that_of_the_regressions_mean():
    """From the covariance of the coefficients, which np.polyfit gives another way."""
    line, place = Line(INSIDE, OUTSIDE), 68.0
    coefficients, covariance = np.polyfit(logit(INSIDE), logit(OUTSIDE), 1, cov="unscaled")
    residuals = logit(OUTSIDE) - np.polyval(coefficients, logit(INSIDE))
    at = np.array([logit(place), 1])
    error = np.sqrt(at @ covariance @ at * (residuals @ residuals) / (len(INSIDE) - 2))
    low, high = line.interval(np.array([place]), 0.95)
    half = 2.7764451 * error  # Student's t of 4 degrees of freedom at 97.5 %
    middle = np.polyval(coefficients, logit(place))
    assert (low[0], high[0]) == pytest.approx(
        (percent(middle - half), percent(middle + half)), rel=1e-6
    )
    beyond = line.interval(np.array([10.0]), 0.95)
    assert logit(beyond[1]) - logit(beyond[0]) > 3 * (logit(high) - logit(low)), (
        "wider where nothing was measured"
    )


@pytest.fixture
def baselines():
    rows = [("m", "ood", "val", *pair) for pair in zip(INSIDE, OUTSIDE, strict=True)]
    return pd.DataFrame(rows, columns=["model", "dataset", "in_distribution", "id", "ood"])


def accuracies(runs):
    lines = [
        ("net", method, target, "all", 0, dataset, 1000, value)
        for (method, target), values in runs.items()
        for dataset, value in values.items()
    ]
    return pd.DataFrame(
        lines, columns=["model", "method", "target", "size", "seed", "dataset", "n", "accuracy"]
    )


def test_a_model_on_the_line_has_none_and_one_above_it_its_height(baselines):
    line = Line(INSIDE, OUTSIDE)
    runs = {
        ("pretrained", "none"): {"val": 80.0, "ood": float(line.at(80.0)), "other": 1.0},
        ("ft", "other"): {"val": 60.0, "ood": float(line.at(60.0)) + 7, "other": 99.0},
        ("lwf", "other"): {"val": 30.0, "ood": float(line.at(30.0)) - 3, "other": 99.0},
    }
    table = robustness_table(accuracies(runs), baselines, 0.95).set_index("method")
    assert (
        len(table) == 2
        and set(table["dataset"]) == {"ood"}
        and set(table["in_distribution"]) == {"val"}
    )
    assert table["rho_before"].tolist() == pytest.approx([0, 0])
    assert table.loc["ft", ["rho_after", "change"]].tolist() == pytest.approx([7, 7])
    assert table.loc["lwf", ["rho_after", "change"]].tolist() == pytest.approx([-3, -3])
    assert table["extrapolated"].to_dict() == {"ft": False, "lwf": True}
    low, high = line.interval(np.array([60.0]), 0.95)
    assert table.loc["ft", ["low", "high"]].tolist() == pytest.approx(
        [line.at(60.0) + 7 - high[0], line.at(60.0) + 7 - low[0]]
    )
    assert table.loc["ft", ["id_before", "id_after"]].tolist() == [80, 60]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (58, 84, False),
        (57.9, 70, True),
        (84.1, 70, True),
        (70, 57.9, True),
        (70, 84.1, True),
        (50, 90, True),
    ],
    ids=str,
)
def test_a_line_is_extrapolated_where_either_accuracy_lies_outside_its_models(
    baselines, before, after, expected
):
    """The models' accuracies in distribution are 58 to 84 %, both ends among them."""
    runs = {
        ("pretrained", "none"): {"val": before, "ood": 50.0},
        ("ft", "x"): {"val": after, "ood": 50.0},
    }
    assert robustness_table(accuracies(runs), baselines, 0.95)["extrapolated"].tolist() == [
        expected
    ]


def test_each_run_and_dataset_is_held_against_its_own_line_and_its_own_model(baselines):
    """Two models, methods, seeds and sizes, and two datasets.

    The datasets have different datasets in distribution.
    """
    second = baselines.assign(
        dataset="far", in_distribution="val_far", ood=OUTSIDE[::-1] / 2, id=INSIDE + 5
    )
    both = pd.concat([baselines, second], ignore_index=True)
    rng = np.random.default_rng(0)
    states = [
        ("pretrained", "none", "all", 0),
        *itertools.product(("lwf", "ft"), "ab", ("10", "all"), (0, 1)),
    ]
    sets = {"ood": "val", "far": "val_far", "other": ""}
    table = pd.DataFrame(
        [
            (model, *state, dataset, 1000, rng.uniform(20, 80))
            for model in ("n", "m")
            for state in states
            for dataset in ("ood", "val", "far", "val_far", "other")
        ],
        columns=["model", "method", "target", "size", "seed", "dataset", "n", "accuracy"],
    )
    of = table.set_index(["model", "method", "target", "size", "seed", "dataset"])["accuracy"]
    found = robustness_table(table, both, 0.9)
    run = ["model", "method", "target", "size", "seed"]
    assert len(found) == 2 * 2 * 2 * 2 * 2 * 2 and not found.duplicated([*run, "dataset"]).any()
    assert found.equals(found.sort_values([*run, "dataset"]))
    for line in found.itertuples():
        own = both[both["dataset"] == line.dataset]
        slope, intercept = np.polyfit(logit(own["id"]), logit(own["ood"]), 1)
        rho = []
        for key, when in ((("pretrained", "none", "all", 0), "before"), (line[2:6], "after")):
            inside, outside = (
                of[line.model, *key, sets[line.dataset]],
                of[line.model, *key, line.dataset],
            )
            assert (getattr(line, f"id_{when}"), getattr(line, f"ood_{when}")) == (inside, outside)
            rho.append(outside - percent(intercept + slope * logit(inside)))
        assert (line.rho_before, line.rho_after, line.change) == pytest.approx(
            (*rho, rho[1] - rho[0])
        )
        assert line.in_distribution == sets[line.dataset]
        low, high = Line(own["id"], own["ood"]).interval(np.array([line.id_after]), 0.9)
        assert (line.low, line.high) == pytest.approx(
            (line.ood_after - high[0], line.ood_after - low[0])
        )
        assert line.low < line.rho_after < line.high
    assert list(found) == [
        *run, "dataset", "in_distribution", "id_before", "ood_before", "rho_before",
        "id_after", "ood_after", "rho_after",
        "low", "high", "change", "extrapolated",
    ]  # fmt: skip


def test_the_line_is_scipys_regression_with_its_residual_about_it():
    line, x, y = Line(INSIDE, OUTSIDE), logit(INSIDE), logit(OUTSIDE)
    assert (line.centre, line.spread) == pytest.approx((x.mean(), x.var() * len(x)))
    predicted = np.polyval(np.polyfit(x, y, 1), x)
    assert line.residual == pytest.approx(np.sqrt(((y - predicted) ** 2).sum() / 4))
    assert line.spread / line.residual**2 == pytest.approx(1 / stats.linregress(x, y).stderr ** 2)


def test_the_interval_is_narrowest_at_the_models_mean_and_wider_with_more_confidence():
    line = Line(INSIDE, OUTSIDE)
    places = percent(line.centre + np.array([-1.0, -0.5, 0.0, 0.5, 1.0]))
    low, high = line.interval(places, 0.95)
    width = logit(high) - logit(low)
    assert width[0] == pytest.approx(width[4]) and width[1] == pytest.approx(width[3])
    assert width[2] < width[1] < width[0]
    assert width[2] == pytest.approx(2 * stats.t.ppf(0.975, 4) * line.residual / np.sqrt(6))
    narrow = line.interval(places, 0.5)
    assert (
        (low < narrow[0]).all() and (narrow[0] < line.at(places)).all() and (narrow[1] < high).all()
    )
    assert (logit(low) + logit(high)) / 2 == pytest.approx(logit(line.at(places)))


def test_the_tables_are_written_with_their_conditions(tmp_path, baselines):
    runs = accuracies(
        {
            ("pretrained", "none"): {"val": 70.0, "ood": 50.0},
            ("ft", "x"): {"val": 65.0, "ood": 55.0},
        }
    ).assign(size="010")  # no number
    runs.assign(conditions="c").to_csv(tmp_path / "accuracy.csv", index=False)
    outputs = {
        name: tmp_path / f"{name}.csv" for name in ("effective_robustness", "baseline_lines")
    }
    stated = [BaselineAccuracies(**pair) for pair in baselines.to_dict("records")]
    write(
        robustness_tables,
        accuracy=tmp_path / "accuracy.csv",
        baselines=stated,
        confidence=0.9,
        conditions="paper",
        outputs=outputs,
    )
    table, lines = (pd.read_csv(path, dtype={"size": str}) for path in outputs.values())
    expected = robustness_table(runs, baselines, 0.9).assign(conditions="paper")
    pd.testing.assert_frame_equal(table, expected, atol=1e-6)
    pd.testing.assert_frame_equal(
        lines, line_table(baselines).assign(conditions="paper"), atol=1e-6
    )
    columns = "dataset in_distribution models slope intercept correlation lowest highest conditions"
    assert list(lines) == columns.split()
    assert lines["in_distribution"].tolist() == ["val"] and lines["lowest"].tolist() == [58]


def test_none_or_all_right_is_no_infinite_logit(baselines):
    runs = {
        ("pretrained", "none"): {"val": 100.0, "ood": 0.0},
        ("ft", "x"): {"val": 0.0, "ood": 100.0},
    }
    table = robustness_table(accuracies(runs).assign(n=200), baselines, 0.95)
    assert table[["id_before", "ood_before", "id_after", "ood_after"]].to_numpy().tolist() == [
        [99.75, 0.25, 0.25, 99.75]
    ]
    assert np.isfinite(table[["rho_before", "rho_after", "low", "high"]].to_numpy()).all()


def test_too_few_models_are_refused(baselines):
    with pytest.raises(UserError, match="3 or more"):
        line_table(baselines.iloc[:2])
    with pytest.raises(UserError, match="of different accuracy"):
        Line(np.full(5, 70.0), OUTSIDE[:5])
    assert Line(INSIDE[:3], OUTSIDE[:3]).models == 3


def grid(pytestconfig, datasets):
    catalog = Catalog([pytestconfig.rootpath / "workflow/catalog"])
    return resolve_grid(
        validated(
            {"family": "imagenet", "datasets": datasets, "methods": ["ft"]}, "config", "here"
        ),
        catalog,
    )


def test_pairs_have_the_same_classes_and_no_adversarial_filter(pytestconfig):
    plain = grid(
        pytestconfig,
        ["imagenet_val", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"],
    )
    assert {(pair.dataset, pair.in_distribution) for pair in published(plain)} == {
        ("imagenet_v2", "imagenet_val"),
        ("imagenet_sketch", "imagenet_val"),
    }
    both = published(
        grid(pytestconfig, ["imagenet_val", "imagenet_val_r", "imagenet_a", "imagenet_r"])
    )
    assert {(pair.dataset, pair.in_distribution) for pair in both} == {
        ("imagenet_r", "imagenet_val_r")
    }
    found = {pair.model: (pair.id, pair.ood) for pair in both}
    assert found["vgg11.tv_in1k"] == (87.350, 26.537) and found["resnet50.tv2_in1k"] == (
        94.600,
        42.840,
    )
    assert not any("in21k" in model or "clip" in model or "openai" in model for model in found)


def test_published_models_follow_their_lines(pytestconfig):
    """A number under a wrong model or dataset would lie off the line."""
    stated = pd.DataFrame([dict(pair) for pair in published(grid(pytestconfig, "all"))])
    lines = line_table(stated).set_index("dataset")
    assert lines["models"].to_dict() == {"imagenet_v2": 39, "imagenet_r": 37, "imagenet_sketch": 39}
    assert lines.loc["imagenet_v2", "correlation"] > 0.99 and (lines["correlation"] > 0.9).all()
    off = stated["ood"] - np.concatenate(
        [Line(p["id"], p["ood"]).at(p["id"]) for _, p in stated.groupby("dataset", sort=False)]
    )
    assert off.abs().max() < 7
