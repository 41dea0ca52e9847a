"""Lines against NumPy's fit on logits, and effective robustness against its definition."""

import numpy as np
import pandas as pd
import pytest

from rib.analysis.effective_robustness import fit, line_table, robustness_table, within
from rib.catalog import Catalog, validated
from rib.grid import Grid
from rib.io import UserError

INSIDE = np.array([58.0, 66.0, 70.0, 74.5, 79.0, 84.0])
OUTSIDE = np.array([45.0, 52.0, 59.0, 62.0, 69.0, 72.5])


def logit(percent):
    return np.log(percent / (100 - percent))


def percent(logits):
    return 100 / (1 + np.exp(-logits))


def test_the_line_is_numpys_fit_between_logits():
    line = fit(INSIDE, OUTSIDE)
    slope, intercept = np.polyfit(logit(INSIDE), logit(OUTSIDE), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line.correlation == pytest.approx(np.corrcoef(logit(INSIDE), logit(OUTSIDE))[0, 1])
    assert line.at(np.array([75.0])) == pytest.approx(percent(intercept + slope * logit(75.0)))
    assert (line.models, line.lowest, line.highest) == (6, 58, 84)


def test_its_interval_is_that_of_the_regressions_mean():
    """From the covariance of the coefficients, which np.polyfit gives another way."""
    line, place = fit(INSIDE, OUTSIDE), 68.0
    coefficients, covariance = np.polyfit(logit(INSIDE), logit(OUTSIDE), 1, cov="unscaled")
    residuals = logit(OUTSIDE) - np.polyval(coefficients, logit(INSIDE))
    at = np.array([logit(place), 1])
    error = np.sqrt(at @ covariance @ at * (residuals @ residuals) / (len(INSIDE) - 2))
    low, high = line.interval(np.array([place]), 0.95)
    half = 2.7764451 * error  # Student's t of 4 degrees of freedom at 97.5 %
    middle = np.polyval(coefficients, logit(place))
    assert (low[0], high[0]) == pytest.approx((percent(middle - half), percent(middle + half)), rel=1e-6)
    beyond = line.interval(np.array([10.0]), 0.95)
    assert logit(beyond[1]) - logit(beyond[0]) > 3 * (logit(high) - logit(low)), "wider where nothing was measured"


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
    return pd.DataFrame(lines, columns=["model", "method", "target", "size", "seed", "dataset", "n", "accuracy"])


def test_a_model_on_the_line_has_none_and_one_above_it_its_height(baselines):
    line = fit(INSIDE, OUTSIDE)
    runs = {
        ("pretrained", "none"): {"val": 80.0, "ood": float(line.at(80.0)), "other": 1.0},
        ("ft", "other"): {"val": 60.0, "ood": float(line.at(60.0)) + 7, "other": 99.0},
        ("lwf", "other"): {"val": 30.0, "ood": float(line.at(30.0)) - 3, "other": 99.0},
    }
    table = robustness_table(accuracies(runs), baselines, 0.95).set_index("method")
    assert len(table) == 2 and set(table["dataset"]) == {"ood"} and set(table["in_distribution"]) == {"val"}
    assert table["rho_before"].tolist() == pytest.approx([0, 0])
    assert table.loc["ft", ["rho_after", "change"]].tolist() == pytest.approx([7, 7])
    assert table.loc["lwf", ["rho_after", "change"]].tolist() == pytest.approx([-3, -3])
    assert table["extrapolated"].to_dict() == {"ft": False, "lwf": True}
    low, high = line.interval(np.array([60.0]), 0.95)
    assert table.loc["ft", ["low", "high"]].tolist() == pytest.approx(
        [line.at(60.0) + 7 - high[0], line.at(60.0) + 7 - low[0]]
    )
    assert table.loc["ft", ["id_before", "id_after"]].tolist() == [80, 60]


def test_none_or_all_right_is_no_infinite_logit(baselines):
    assert within(pd.Series([0.0, 50.0, 100.0]), pd.Series([200, 200, 200])).tolist() == [0.25, 50, 99.75]
    runs = {("pretrained", "none"): {"val": 100.0, "ood": 0.0}, ("ft", "x"): {"val": 0.0, "ood": 100.0}}
    table = robustness_table(accuracies(runs), baselines, 0.95)
    assert np.isfinite(table[["rho_before", "rho_after", "low", "high"]].to_numpy()).all()


def test_too_few_models_are_a_sentence(baselines):
    with pytest.raises(UserError, match="takes 3 or more baseline models"):
        line_table(baselines.iloc[:2])


def grid(pytestconfig, datasets):
    catalog = Catalog([pytestconfig.rootpath / "workflow/catalog"])
    return Grid(validated({"family": "imagenet", "datasets": datasets, "methods": ["ft"]}, "config", "here"), catalog)


def test_pairs_have_the_same_classes_and_no_adversarial_filter(pytestconfig):
    plain = grid(
        pytestconfig, ["imagenet_val", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"]
    )
    assert {(pair["dataset"], pair["in_distribution"]) for pair in plain.baselines()} == {
        ("imagenet_v2", "imagenet_val"),
        ("imagenet_sketch", "imagenet_val"),
    }
    both = grid(pytestconfig, ["imagenet_val", "imagenet_val_r", "imagenet_a", "imagenet_r"]).baselines()
    assert {(pair["dataset"], pair["in_distribution"]) for pair in both} == {("imagenet_r", "imagenet_val_r")}
    found = {pair["model"]: (pair["id"], pair["ood"]) for pair in both}
    assert found["vgg11.tv_in1k"] == (87.350, 26.537) and found["resnet50.tv2_in1k"] == (94.600, 42.840)
    assert not any("in21k" in model or "clip" in model or "openai" in model for model in found)


def test_published_models_follow_their_lines(pytestconfig):
    """A number under a wrong model or dataset would lie off the line."""
    stated = pd.DataFrame(grid(pytestconfig, "all").baselines())
    lines = line_table(stated).set_index("dataset")
    assert lines["models"].to_dict() == {"imagenet_v2": 39, "imagenet_r": 37, "imagenet_sketch": 39}
    assert lines.loc["imagenet_v2", "correlation"] > 0.99 and (lines["correlation"] > 0.9).all()
    off = stated["ood"] - np.concatenate(
        [fit(p["id"], p["ood"]).at(p["id"]) for _, p in stated.groupby("dataset", sort=False)]
    )
    assert off.abs().max() < 7
