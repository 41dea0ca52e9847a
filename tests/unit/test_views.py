"""Interactive views of the page."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from rib.base.rounding import points
from rib.reporting.views import MEAN, MOST_ROWS, page_views, with_intervals
from tiny.descriptions import description

RUN = ["model", "method", "target", "size", "seed"]
HOSTILE = "'; alert(1) //</script>\""


def about(label="Net"):
    grid = {
        "shown_size": "all",
        "config": {"statistics": {"confidence": 0.95}},
        "models": {"net": {"label": label}, "other": {"label": "Other"}},
        "methods": {"ft": {"label": "full, fine-tuning"}, "ewc": {"label": "EWC"}},
        "datasets": {name: {"label": name.upper()} for name in "ab"},
    }
    return description(grid)


def tables():
    """mRI, RI and accuracy of two models, methods, targets and seeds."""
    rng = np.random.default_rng(0)
    runs = [
        (m, w, t, "all", s)
        for m in ("net", "other")
        for w in ("ewc", "ft")
        for t in "ab"
        for s in (0, 1)
    ]
    ri = pd.DataFrame(runs, columns=RUN).assign(
        ri=rng.normal(0, 5, len(runs)), fit=90.0, unfinished=0
    )
    ri = ri.assign(ci_low=ri["ri"] - 1, ci_high=ri["ri"] + 1)
    mri = (
        ri.groupby(["model", "method", "size"])[["ri", "ci_low", "ci_high", "fit"]]
        .mean()
        .reset_index()
    )
    mri = mri.rename(columns={"ri": "mri"}).assign(
        unfinished=[1, 0, 0, 0], on_target_before=40.0, on_target=90.0
    )
    mri = mri.assign(on_target_low=85.0, on_target_high=95.0)
    before = [(m, "pretrained", "none", "all", 0) for m in ("net", "other")]
    accuracy = [
        (*run, d, 50, k)
        for run in [*before, *runs]
        for d, k in zip("ab", rng.integers(0, 51, 2), strict=True)
    ]
    accuracy = pd.DataFrame(accuracy, columns=[*RUN, "dataset", "n", "correct"])
    return mri, ri, accuracy.assign(accuracy=2.0 * accuracy["correct"])


def data(view):
    """Rows of a view's data, and the columns that are parsed as numbers."""
    parts = (part.get("data", {}) for part in (view, *view["layer"]))
    own = next(part for part in parts if isinstance(part.get("values"), str))
    return list(csv.DictReader(io.StringIO(own["values"]))), own["format"]["parse"]


def test_views_are_the_same_bytes_each_time():
    colours = {"ft": "#123456", "ewc": "#654321"}
    first, second = (json.dumps(page_views(*tables(), about(), colours)) for _ in range(2))
    assert first == second and len(json.loads(first)) == 3


@pytest.mark.parametrize("seeds", [1, 2])
def test_each_number_is_shown_with_its_interval_if_it_is_no_mean_of_several(seeds):
    mri, ri, accuracy = tables()
    ri = ri[ri["seed"] < seeds]
    rows, numbers = data(page_views(mri, ri, accuracy, about(), {})["ri_matrix"])
    shown = {(row["run"]): row for row in rows}
    assert len(shown) == 8 + 4
    means = ri.groupby(["model", "method", "target"])[["ri", "ci_low", "ci_high"]].mean()
    for names, numbers_of_run in means.iterrows():
        row, (value, low, high) = (
            shown["/".join(names)],
            map(points, numbers_of_run),
        )
        assert (
            row["shown"] == (f"{value}, {low} to {high}" if seeds == 1 else value)
            and row["text"] == value
        )
    assert [row["text"][-1] == "†" for row in rows if row["target"] == MEAN].count(True) == 1
    assert {"ri", "dark"} <= set(numbers) and not {"model", "method", "target", "shown"} & set(
        numbers
    )


@pytest.mark.parametrize("correct", [0, 1, 25, 50])
def test_intervals_of_accuracies_are_wilsons(correct):
    table = pd.DataFrame(
        [("net", "ft", "a", "all", 0, "b", 50, 2.0 * correct)],
        columns=[*RUN, "dataset", "n", "accuracy"],
    )
    found = with_intervals(table, 0.9).iloc[0]
    expected = binomtest(correct, 50).proportion_ci(0.9, method="wilson")
    assert np.allclose([found["low"], found["high"]], [100 * expected.low, 100 * expected.high])


def test_a_label_is_data_and_not_part_of_an_expression():
    usual, odd = (page_views(*tables(), about(label), {}) for label in ("Net", HOSTILE))
    for name, view in odd.items():
        rows, _ = data(view)
        assert HOSTILE in {row["model"] for row in rows}
        expressions = [json.dumps(part.get("transform")) for part in (view, *view["layer"])]
        assert expressions == [
            json.dumps(part.get("transform")) for part in (usual[name], *usual[name]["layer"])
        ]


def test_without_fine_tuned_runs_there_is_no_view():
    mri, ri, accuracy = tables()
    assert page_views(mri[:0], ri[:0], accuracy, about(), {}) == {}


def test_the_trade_off_has_a_panel_for_changes_in_distribution_if_there_are_some():
    mri, ri, accuracy = tables()
    changes = mri[["model", "method", "size"]].assign(change=-9.0, ci_low=-10.0, ci_high=-8.0)
    view = page_views(mri, ri, accuracy, about(), {}, changes)["tradeoff"]
    titles = [panel["layer"][-1]["encoding"]["y"]["title"] for panel in view["concat"]]
    assert len(titles) == 2 and "mRI" in titles[0] and "in distribution" in titles[1]
    datasets = [part["data"] for part in (view, *view["concat"]) if "data" in part]
    rows = list(csv.DictReader(io.StringIO(datasets[0]["values"])))
    shown = {(row["method"], row["target"]): row["inside"] for row in rows}
    assert shown["EWC", MEAN] == "-9.0" and shown["pretrained", MEAN] == "0.0"
    assert shown["EWC", "A"] == "", "a single target has no mean"


def test_a_matrix_of_many_rows_begins_with_one_model():
    mri, ri, accuracy = tables()
    few = page_views(mri, ri, accuracy, about(), {})["accuracy_matrix"]
    many = pd.concat(
        [accuracy.assign(target=accuracy["target"] + str(n)) for n in range(MOST_ROWS)]
    )
    large = page_views(mri, ri, many, about(), {})["accuracy_matrix"]

    def first_choices(view):
        return {menu["name"]: menu["value"] for menu in view["params"] if "bind" in menu}

    assert first_choices(few) == {"model": None, "method": None, "target": None}
    assert first_choices(large)["model"] == "Net"
