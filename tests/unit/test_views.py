"""Interactive views of the page."""

import csv
import io
import itertools
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from rib.base.rounding import points
from rib.report.report_settings import Look
from rib.report.views import MEAN, MOST_ROWS, page_views, with_intervals
from rib.schema.run import RUN_COLUMNS
from tiny.projects.descriptions import description

MODELS = ("net", "other")
METHODS = ("ewc", "ft")
TARGETS = ("a", "b")
SEEDS = (0, 1)
IMAGES = 50  # of each dataset
HOSTILE = "'; alert(1) //</script>\""


def described(label="Net", **about):
    """The description of a grid with this label of the first model."""
    return description(
        {
            "shown_size": "all",
            "config": {"statistics": {"confidence": 0.95}},
            "models": {"net": {"label": label}, "other": {"label": "Other"}},
            "methods": {"ft": {"label": "full, fine-tuning"}, "ewc": {"label": "EWC"}},
            "datasets": {"a": {"label": "A"}, "b": {"label": "B"}},
            **about,
        }
    )


@dataclass(frozen=True)
class Tables:
    """mRI, RI and accuracy of two models, methods, targets and seeds."""

    mri: pd.DataFrame
    ri: pd.DataFrame
    accuracy: pd.DataFrame

    def views(self, label="Net", looks=None, in_distribution=None, **about):
        """The views of these tables.

        Args:
            label: of the first model.
            about: more of the grid's description.
        """
        grid = described(label, **about)
        return page_views(self.mri, self.ri, self.accuracy, grid, looks or {}, in_distribution)


def random_ri(rng):
    """Rows of ri.csv."""
    runs = list(itertools.product(MODELS, METHODS, TARGETS, ["all"], SEEDS))
    table = pd.DataFrame(runs, columns=RUN_COLUMNS)
    ri = rng.normal(0, 5, len(runs))
    return table.assign(ri=ri, ci_low=ri - 1, ci_high=ri + 1, fit=90.0, underfitted=0)


def mri_of(ri):
    """Rows of mri.csv; the runs of the first method of the first model are underfitted."""
    groups = ri.groupby(["model", "method", "size"])
    means = groups[["ri", "ci_low", "ci_high", "fit"]].mean().reset_index()
    return means.rename(columns={"ri": "mri"}).assign(
        underfitted=[1, 0, 0, 0],
        on_target_before=40.0,
        on_target=90.0,
        on_target_low=85.0,
        on_target_high=95.0,
    )


def random_accuracies(ri, rng):
    """Rows of accuracy.csv of the pretrained models and the runs of ri.csv."""
    runs = [(model, "pretrained", "none", "all", 0) for model in MODELS]
    runs += ri[RUN_COLUMNS].itertuples(index=False, name=None)
    lines = []
    for run, dataset in itertools.product(runs, ("a", "b")):
        correct = rng.integers(0, IMAGES + 1)
        lines.append((*run, dataset, IMAGES, correct, 100 * correct / IMAGES))
    columns = [*RUN_COLUMNS, "dataset", "n", "correct", "accuracy"]
    return pd.DataFrame(lines, columns=columns)


@pytest.fixture
def tables():
    """Tables of made-up numbers."""
    rng = np.random.default_rng(0)
    ri = random_ri(rng)
    return Tables(mri_of(ri), ri, random_accuracies(ri, rng))


def csv_rows(text):
    """The rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


def data_of(view):
    """Rows of a view's data, and the columns that are parsed as numbers."""
    (data,) = [
        layer["data"]
        for layer in (view, *view["layer"])
        if isinstance(layer.get("data", {}).get("values"), str)
    ]
    return csv_rows(data["values"]), data["format"]["parse"]


def test_views_are_the_same_bytes_each_time(tables):
    looks = {
        "ft": Look(colour="#123456", marker="s"),
        "ewc": Look(colour="#654321", marker="?"),
    }
    views = tables.views(looks=looks)
    assert len(views) == 3
    assert json.dumps(views) == json.dumps(tables.views(looks=looks))


@pytest.mark.parametrize("seeds", [1, 2])
def test_each_number_is_shown_with_its_interval_if_it_is_no_mean_of_several(tables, seeds):
    # given
    ri = tables.ri[tables.ri["seed"] < seeds]
    # when
    view = Tables(tables.mri, ri, tables.accuracy).views()["ri_matrix"]
    # then
    rows, numbers = data_of(view)
    row_of_run = {row["run"]: row for row in rows}
    means_over_targets = len(MODELS) * len(METHODS)
    assert len(row_of_run) == means_over_targets * len(TARGETS) + means_over_targets
    means = ri.groupby(["model", "method", "target"])[["ri", "ci_low", "ci_high"]].mean()
    for model_method_target, (mean, low, high) in means.iterrows():
        row = row_of_run["/".join(model_method_target)]
        assert row["text"] == points(mean)
        if seeds == 1:
            assert row["shown"] == f"{points(mean)}, {points(low)} to {points(high)}"
        else:
            assert row["shown"] == points(mean)
    underfitted = [row for row in rows if row["target"] == MEAN and row["text"].endswith("†")]
    assert len(underfitted) == 1
    assert {"ri", "dark"} <= set(numbers)
    assert not {"model", "method", "target", "shown"} & set(numbers)


SHARED_SOURCES = {"sharing_targets": ["b"], "source_groups": {"b": "g", "c": "g"}}


def test_cells_of_ri_have_what_those_of_the_figure_have(tables):
    """RI with its marks, below it the interval and the fit; targets with shared sources have ‡."""
    # given
    ri = tables.ri[tables.ri["seed"] == 0]
    first_is_underfitted = ri.assign(underfitted=[1, *[0] * (len(ri) - 1)])
    # when
    view = Tables(tables.mri, first_is_underfitted, tables.accuracy).views(**SHARED_SOURCES)[
        "ri_matrix"
    ]
    # then
    rows, _ = data_of(view)
    text_of_run = {row["run"]: row["text"] for row in rows}
    for row in ri.to_dict("records"):
        (cell,) = [
            cell
            for cell in rows
            if cell["run"] == f"{row['model']}/{row['method']}/{row['target']}"
        ]
        assert cell["interval"] == f"{points(row['ci_low'])} to {points(row['ci_high'])}"
        assert cell["fit_line"] == "fit 90.0"
        assert cell["text"].startswith(points(row["ri"]))
    marks_of_run = {run: text.lstrip("+-.0123456789") for run, text in text_of_run.items()}
    assert marks_of_run["net/ewc/a"] == "†"
    assert marks_of_run["net/ewc/b"] == marks_of_run["other/ft/b"] == "‡"
    assert marks_of_run["other/ft/a"] == marks_of_run["other/ft/mRI"] == ""


def test_cells_of_accuracy_have_the_marks_of_the_figure(tables):
    # given
    on_c = tables.accuracy[tables.accuracy["dataset"] == "a"].assign(dataset="c")
    accuracy = pd.concat([tables.accuracy, on_c])
    datasets = {name: {"label": name.upper()} for name in "abc"}
    # when
    with_c = Tables(tables.mri, tables.ri, accuracy)
    view = with_c.views(**SHARED_SOURCES, datasets=datasets)["accuracy_matrix"]
    # then
    rows, _ = data_of(view)
    marked = {(row["target"], row["dataset"]) for row in rows if row["text"].endswith("‡")}
    outlined = {(row["target"], row["dataset"]) for row in rows if row["own"] == "1"}
    assert marked == {("B", "C")}
    assert outlined == {("A", "A"), ("B", "B")}


@pytest.mark.parametrize("correct", [0, 25, 50])
def test_intervals_of_accuracies_are_wilsons(correct):
    accuracy = 100 * correct / IMAGES
    table = pd.DataFrame(
        [("net", "ft", "a", "all", 0, "b", IMAGES, accuracy)],
        columns=[*RUN_COLUMNS, "dataset", "n", "accuracy"],
    )
    (line,) = with_intervals(table, 0.9).to_dict("records")
    expected = binomtest(correct, IMAGES).proportion_ci(0.9, method="wilson")
    assert line["low"] == pytest.approx(100 * expected.low)
    assert line["high"] == pytest.approx(100 * expected.high)


def expressions_of(view):
    """What a view and its layers compute."""
    return [json.dumps(layer.get("transform")) for layer in (view, *view["layer"])]


def test_a_label_is_data_and_not_part_of_an_expression(tables):
    views = tables.views(label="Net")
    views_with_hostile_label = tables.views(label=HOSTILE)
    for name, view in views_with_hostile_label.items():
        rows, _ = data_of(view)
        assert HOSTILE in {row["model"] for row in rows}
        assert expressions_of(view) == expressions_of(views[name])


def test_without_fine_tuned_runs_there_is_no_view(tables):
    of_pretrained_models = Tables(tables.mri[:0], tables.ri[:0], tables.accuracy)
    assert of_pretrained_models.views() == {}


def test_the_trade_off_has_a_panel_for_changes_in_distribution_if_there_are_some(tables):
    # given
    models_and_methods = tables.mri[["model", "method", "size"]]
    changes = models_and_methods.assign(change=-9.0, ci_low=-10.0, ci_high=-8.0)
    # when
    view = tables.views(in_distribution=changes)["tradeoff"]
    # then
    upper_panel, lower_panel = view["concat"]
    data, *_ = [chart["data"] for chart in (view, upper_panel, lower_panel) if "data" in chart]
    change_of_point = {}
    for row in csv_rows(data["values"]):
        change_of_point[row["method"], row["target"]] = row["inside"]
    assert change_of_point["EWC", MEAN] == "-9.0"
    assert change_of_point["pretrained", MEAN] == "0.0"
    assert change_of_point["EWC", "A"] == "", "a single target has no mean"


def first_choices(view):
    """What is chosen in each menu of a view at first."""
    return {menu["name"]: menu["value"] for menu in view["params"] if "bind" in menu}


def test_a_matrix_of_many_rows_begins_with_one_model(tables):
    matrix = tables.views()["accuracy_matrix"]
    assert first_choices(matrix) == {"model": None, "method": None, "target": None}

    of_many_targets = []
    for number in range(MOST_ROWS):
        target = tables.accuracy["target"] + str(number)
        of_many_targets.append(tables.accuracy.assign(target=target))
    with_many_rows = Tables(tables.mri, tables.ri, pd.concat(of_many_targets))
    large_matrix = with_many_rows.views()["accuracy_matrix"]
    assert first_choices(large_matrix)["model"] == "Net"
