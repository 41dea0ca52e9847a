"""Lines against NumPy's fit on logits, and effective robustness against its definition."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.effective_robustness import tables as effective_robustness
from rib.analyses.effective_robustness.baselines import baseline_accuracies
from rib.analyses.effective_robustness.tables import Line, line_table, robustness_table
from rib.base.errors import UserError
from rib.schema.run import RUN_COLUMNS
from rib.statistics.inputs import Inputs
from rib.statistics.writing import write_tables
from tiny.projects.grids import grid

CATALOG = Path(__file__).parents[2] / "workflow/catalog"

# Accuracies of six models in percent, on a dataset in distribution and on another.
INSIDE = np.array([58.0, 66.0, 70.0, 74.5, 79.0, 84.0])
OUTSIDE = np.array([45.0, 52.0, 59.0, 62.0, 69.0, 72.5])
DEGREES_OF_FREEDOM = len(INSIDE) - 2
ACCURACY_COLUMNS = [*RUN_COLUMNS, "dataset", "n", "accuracy"]


def logit(percent):
    """The log odds of accuracies in percent."""
    return np.log(percent / (100 - percent))


def percent(logits):
    """Accuracies in percent of log odds."""
    return 100 / (1 + np.exp(-logits))


def fitted_by_numpy(inside, outside):
    """Slope and intercept of the line through the logits of accuracies."""
    slope, intercept = np.polyfit(logit(inside), logit(outside), 1)
    return slope, intercept


def interval_at(line, accuracy, confidence):
    """Both ends of a line's interval at one accuracy in distribution."""
    (low,), (high,) = line.interval(np.array([accuracy]), confidence)
    return low, high


# Lines


def test_the_line_is_numpys_fit_between_logits():
    line = Line(INSIDE, OUTSIDE)
    slope, intercept = fitted_by_numpy(INSIDE, OUTSIDE)
    correlations = np.corrcoef(logit(INSIDE), logit(OUTSIDE))
    assert line.slope == pytest.approx(slope)
    assert line.intercept == pytest.approx(intercept)
    assert line.correlation == pytest.approx(correlations[0, 1])
    assert line.at(np.array([75.0])) == pytest.approx(percent(intercept + slope * logit(75.0)))
    assert line.models == 6
    assert line.lowest == 58
    assert line.highest == 84


def test_its_interval_is_that_of_the_regressions_mean():
    """From the covariance of the coefficients, which np.polyfit gives another way."""
    # given the line's coefficients, their covariance, and the variance of residuals
    accuracy = 68.0
    coefficients, covariance = np.polyfit(logit(INSIDE), logit(OUTSIDE), 1, cov="unscaled")
    residuals = logit(OUTSIDE) - np.polyval(coefficients, logit(INSIDE))
    variance = residuals @ residuals / DEGREES_OF_FREEDOM
    # when
    low, high = interval_at(Line(INSIDE, OUTSIDE), accuracy, 0.95)
    # then
    terms = np.array([logit(accuracy), 1])
    error = np.sqrt(terms @ covariance @ terms * variance)
    reach = 2.7764451 * error  # Student's t of 4 degrees of freedom at 97.5 %
    middle = np.polyval(coefficients, logit(accuracy))
    assert low == pytest.approx(percent(middle - reach), rel=1e-6)
    assert high == pytest.approx(percent(middle + reach), rel=1e-6)


def test_the_interval_is_narrowest_at_the_models_mean_and_wider_with_more_confidence():
    # given places to both sides of the mean
    line = Line(INSIDE, OUTSIDE)
    places = percent(line.centre + np.array([-1.0, -0.5, 0.0, 0.5, 1.0]))
    # when
    low, high = line.interval(places, 0.95)
    low_of_half, high_of_half = line.interval(places, 0.5)
    # then
    far_left, left, middle, right, far_right = logit(high) - logit(low)
    assert far_left == pytest.approx(far_right)
    assert left == pytest.approx(right)
    assert middle < left < far_left
    error_at_mean = line.residual / np.sqrt(len(INSIDE))
    quantile = stats.t.ppf(0.975, DEGREES_OF_FREEDOM)
    assert middle == pytest.approx(2 * quantile * error_at_mean)
    assert (low < low_of_half).all()
    assert (low_of_half < line.at(places)).all()
    assert (high_of_half < high).all()
    assert (logit(low) + logit(high)) / 2 == pytest.approx(logit(line.at(places)))


def test_too_few_models_are_refused(baselines):
    with pytest.raises(UserError, match="3 or more"):
        line_table(baselines.iloc[:2])
    equal_accuracies = np.full(5, 70.0)
    with pytest.raises(UserError, match="of different accuracy"):
        Line(equal_accuracies, OUTSIDE[:5])
    assert Line(INSIDE[:3], OUTSIDE[:3]).models == 3


# Effective robustness


@pytest.fixture
def baselines():
    """The six models on the dataset `ood` and, in distribution, on `val`."""
    return pd.DataFrame(
        {
            "model": "m",
            "dataset": "ood",
            "in_distribution": "val",
            "id": INSIDE,
            "ood": OUTSIDE,
            "source": "made up",
        }
    )


def accuracy_table(accuracies):
    """Rows of accuracy.csv of one model.

    Args:
        accuracies: by method and target, and by dataset, in percent.
    """
    lines = []
    for (method, target), accuracy_of_dataset in accuracies.items():
        for dataset, accuracy in accuracy_of_dataset.items():
            lines.append(("net", method, target, "all", 0, dataset, 1000, accuracy))
    return pd.DataFrame(lines, columns=ACCURACY_COLUMNS)


def test_a_model_on_the_line_has_none_and_one_above_it_its_height(baselines):
    # given
    line = Line(INSIDE, OUTSIDE)
    on_line = float(line.at(80.0))
    above_line = float(line.at(60.0)) + 7
    below_line = float(line.at(30.0)) - 3
    accuracies = accuracy_table(
        {
            ("pretrained", "none"): {"val": 80.0, "ood": on_line, "other": 1.0},
            ("ft", "other"): {"val": 60.0, "ood": above_line, "other": 99.0},
            ("lwf", "other"): {"val": 30.0, "ood": below_line, "other": 99.0},
        }
    )
    # when
    table = robustness_table(accuracies, baselines, 0.95).set_index("method")
    # then
    assert sorted(table.index) == ["ft", "lwf"]
    assert set(table["dataset"]) == {"ood"}
    assert set(table["in_distribution"]) == {"val"}
    assert table["rho_before"].to_dict() == pytest.approx({"ft": 0, "lwf": 0})
    assert table["rho_after"].to_dict() == pytest.approx({"ft": 7, "lwf": -3})
    assert table["change"].to_dict() == pytest.approx({"ft": 7, "lwf": -3})
    assert table["extrapolated"].to_dict() == {"ft": False, "lwf": True}
    assert table.loc["ft", "id_before"] == 80
    assert table.loc["ft", "id_after"] == 60
    low_of_line, high_of_line = interval_at(line, 60.0, 0.95)
    assert table.loc["ft", "low"] == pytest.approx(above_line - high_of_line)
    assert table.loc["ft", "high"] == pytest.approx(above_line - low_of_line)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (58, 84, False),
        (57.9, 70, True),
        (70, 84.1, True),
    ],
    ids=str,
)
def test_a_line_is_extrapolated_where_either_accuracy_lies_outside_its_models(
    baselines, before, after, expected
):
    """The models' accuracies in distribution are 58 to 84 %, both ends among them."""
    accuracies = accuracy_table(
        {
            ("pretrained", "none"): {"val": before, "ood": 50.0},
            ("ft", "x"): {"val": after, "ood": 50.0},
        }
    )
    table = robustness_table(accuracies, baselines, 0.95)
    assert table["extrapolated"].tolist() == [expected]


def random_accuracies():
    """Rows of accuracy.csv of two models, methods, targets, sizes and seeds, on five datasets."""
    rng = np.random.default_rng(0)
    runs = [("pretrained", "none", "all", 0)]
    runs += itertools.product(("lwf", "ft"), ("a", "b"), ("10", "all"), (0, 1))
    datasets = ("ood", "val", "far", "val_far", "other")
    lines = []
    for model, run, dataset in itertools.product(("n", "m"), runs, datasets):
        lines.append((model, *run, dataset, 1000, rng.uniform(20, 80)))
    return pd.DataFrame(lines, columns=ACCURACY_COLUMNS)


def robustness_by_hand(baselines_of_dataset, inside, outside):
    """The height of an accuracy above the line."""
    slope, intercept = fitted_by_numpy(baselines_of_dataset["id"], baselines_of_dataset["ood"])
    return outside - percent(intercept + slope * logit(inside))


def test_each_run_and_dataset_is_held_against_its_own_line_and_its_own_model(baselines):
    """Two models, methods, seeds and sizes, and two datasets.

    The datasets have different datasets in distribution.
    """
    # given
    baselines_of_far = baselines.assign(
        dataset="far", in_distribution="val_far", id=INSIDE + 5, ood=OUTSIDE[::-1] / 2
    )
    baselines_of = {"ood": baselines, "far": baselines_of_far}
    in_distribution_of = {"ood": "val", "far": "val_far"}
    accuracies = random_accuracies()
    accuracy_of = accuracies.set_index([*RUN_COLUMNS, "dataset"])["accuracy"]
    # when
    all_baselines = pd.concat([baselines, baselines_of_far], ignore_index=True)
    table = robustness_table(accuracies, all_baselines, 0.9)
    # then there is a line for each fine-tuned run and dataset, in order
    keys = [*RUN_COLUMNS, "dataset"]
    fine_tuned_runs = 2 * 2 * 2 * 2 * 2
    assert len(table) == fine_tuned_runs * 2
    assert not table.duplicated(keys).any()
    assert table.equals(table.sort_values(keys))
    # and its numbers follow from the accuracies of this run, and of its model before
    for line in table.itertuples():
        baselines_of_dataset = baselines_of[line.dataset]
        in_distribution = in_distribution_of[line.dataset]
        before = (line.model, "pretrained", "none", "all", 0)
        after = (line.model, line.method, line.target, line.size, line.seed)
        assert line.in_distribution == in_distribution
        assert line.id_before == accuracy_of[*before, in_distribution]
        assert line.ood_before == accuracy_of[*before, line.dataset]
        assert line.id_after == accuracy_of[*after, in_distribution]
        assert line.ood_after == accuracy_of[*after, line.dataset]
        rho_before = robustness_by_hand(baselines_of_dataset, line.id_before, line.ood_before)
        rho_after = robustness_by_hand(baselines_of_dataset, line.id_after, line.ood_after)
        assert line.rho_before == pytest.approx(rho_before)
        assert line.rho_after == pytest.approx(rho_after)
        assert line.change == pytest.approx(rho_after - rho_before)
        baseline_line = Line(baselines_of_dataset["id"], baselines_of_dataset["ood"])
        low_of_line, high_of_line = interval_at(baseline_line, line.id_after, 0.9)
        assert line.low == pytest.approx(line.ood_after - high_of_line)
        assert line.high == pytest.approx(line.ood_after - low_of_line)
        assert line.low < line.rho_after < line.high


def test_the_tables_are_written_with_their_conditions(tmp_path, baselines):
    # given a size that is text, though it looks like a number
    accuracies = accuracy_table(
        {
            ("pretrained", "none"): {"val": 70.0, "ood": 50.0},
            ("ft", "x"): {"val": 65.0, "ood": 55.0},
        }
    ).assign(size="010")
    accuracies.assign(conditions="c").to_csv(tmp_path / "accuracy.csv", index=False)
    inputs = Inputs(
        {"accuracy": str(tmp_path / "accuracy.csv")},
        {"baselines": baselines.to_dict("records"), "confidence": 0.9},
    )
    # when
    robustness_file = tmp_path / "effective_robustness.csv"
    lines_file = tmp_path / "baseline_lines.csv"
    write_tables(
        effective_robustness.tables(inputs),
        {"effective_robustness": robustness_file, "baseline_lines": lines_file},
        conditions="paper",
    )
    # then
    table = pd.read_csv(robustness_file, dtype={"size": str})
    expected = robustness_table(accuracies, baselines, 0.9).assign(conditions="paper")
    pd.testing.assert_frame_equal(table, expected, atol=1e-6)
    lines = pd.read_csv(lines_file)
    expected = line_table(baselines).assign(conditions="paper")
    pd.testing.assert_frame_equal(lines, expected, atol=1e-6)
    assert lines["in_distribution"].tolist() == ["val"]
    assert lines["lowest"].tolist() == [58]


def test_none_or_all_right_is_no_infinite_logit(baselines):
    """Of 200 images none right counts as half an image."""
    accuracies = accuracy_table(
        {
            ("pretrained", "none"): {"val": 100.0, "ood": 0.0},
            ("ft", "x"): {"val": 0.0, "ood": 100.0},
        }
    ).assign(n=200)
    (line,) = robustness_table(accuracies, baselines, 0.95).to_dict("records")
    assert line["id_before"] == 99.75
    assert line["ood_before"] == 0.25
    assert line["id_after"] == 0.25
    assert line["ood_after"] == 99.75
    for column in ("rho_before", "rho_after", "low", "high"):
        assert np.isfinite(line[column])


# Published models


def published_of(datasets):
    """The baselines of a grid of the family imagenet with these datasets."""
    return baseline_accuracies(grid(family="imagenet", datasets=datasets, methods=["ft"]))


def pairs_of_datasets(baselines):
    """The datasets of baselines, each with the one in distribution."""
    return {(baseline["dataset"], baseline["in_distribution"]) for baseline in baselines}


def test_pairs_have_the_same_classes_and_no_adversarial_filter():
    of_whole_val = published_of(
        ["imagenet_val", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"]
    )
    assert pairs_of_datasets(of_whole_val) == {
        ("imagenet_v2", "imagenet_val"),
        ("imagenet_sketch", "imagenet_val"),
    }
    with_classes_of_objectnet = published_of(
        ["imagenet_val", "imagenet_val_objectnet", "imagenet_a", "imagenet_r", "objectnet"]
    )
    assert pairs_of_datasets(with_classes_of_objectnet) == {("objectnet", "imagenet_val_objectnet")}

    with_classes_of_r = published_of(["imagenet_val", "imagenet_val_r", "imagenet_a", "imagenet_r"])
    assert pairs_of_datasets(with_classes_of_r) == {("imagenet_r", "imagenet_val_r")}
    accuracies = {
        baseline["model"]: (baseline["id"], baseline["ood"]) for baseline in with_classes_of_r
    }
    assert accuracies["vgg11.tv_in1k"] == (87.34, 26.62)
    assert accuracies["resnet50.tv2_in1k"] == (94.59, 42.84)
    for model in accuracies:
        assert "in21k" not in model
        assert "clip" not in model
        assert "openai" not in model


def test_published_models_follow_their_lines():
    """A number under a wrong model or dataset would lie off the line."""
    baselines = pd.DataFrame(published_of("all"))
    lines = line_table(baselines).set_index("dataset")
    assert lines["models"].to_dict() == {
        "imagenet_v2": 39,
        "imagenet_r": 39,
        "imagenet_sketch": 39,
        "objectnet": 87,
        "imagenet_c": 80,
    }
    assert (lines["correlation"] > 0.9).all()
    assert lines.loc["imagenet_v2", "correlation"] > 0.99
    assert lines["source"].str.contains("timm").to_dict() == {
        "imagenet_v2": True,
        "imagenet_r": True,
        "imagenet_sketch": True,
        "objectnet": False,
        "imagenet_c": False,
    }
    for dataset, of_dataset in baselines.groupby("dataset"):
        line = Line(of_dataset["id"], of_dataset["ood"])
        distances = of_dataset["ood"] - line.at(of_dataset["id"])
        # The testbed's models differ in resolution, which ImageNet-C punishes.
        assert distances.abs().max() < (16 if dataset in ("objectnet", "imagenet_c") else 7)


@pytest.mark.parametrize(
    ("dataset", "in_distribution", "models", "slope", "r_squared"),
    [
        ("objectnet", "imagenet_val_objectnet", 87, 0.9803, 0.9519),
        ("imagenet_c", "imagenet_val", 80, 1.2490, 0.8930),
    ],
)
def test_the_testbeds_lines_follow_from_the_rows_of_its_file(
    dataset, in_distribution, models, slope, r_squared
):
    """Slopes and r squared were computed from the source's file, before it was made compact."""
    # given
    table = pd.read_csv(CATALOG / "testbed_accuracies.csv", comment="#")
    both = table[[in_distribution, dataset]].dropna()
    # when
    (line,) = (
        line
        for line in line_table(pd.DataFrame(published_of("all"))).to_dict("records")
        if line["dataset"] == dataset
    )
    # then
    fitted_slope, intercept = fitted_by_numpy(both[in_distribution], both[dataset])
    assert line["models"] == len(both) == models
    assert line["slope"] == pytest.approx(fitted_slope)
    assert line["intercept"] == pytest.approx(intercept)
    assert line["slope"] == pytest.approx(slope, abs=1e-4)
    assert line["correlation"] ** 2 == pytest.approx(r_squared, abs=1e-4)


def test_a_baseline_entry_has_the_value_of_its_own_image_size():
    """timm publishes resnet50.tv2_in1k at 176 and 224 pixels; its entry has 224."""
    of_model = {
        baseline["dataset"]: baseline["ood"]
        for baseline in published_of("all")
        if baseline["model"] == "resnet50.tv2_in1k"
    }
    table = pd.read_csv(CATALOG / "timm_accuracies.csv", comment="#").set_index("model")
    of_sizes = table.loc["resnet50.tv2_in1k"].set_index("img_size")
    assert of_model["imagenet_v2"] == of_sizes.loc[224, "imagenet_v2"]
    assert of_model["imagenet_v2"] != of_sizes.loc[176, "imagenet_v2"]
