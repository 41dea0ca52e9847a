"""What must be true of the results of `snakemake --config family=emoji`, whatever they are.

Run after it: pytest tests/acceptance/test_emoji_run.py. `.ci/run-slow` does both.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "reports/emoji/tables"


@pytest.fixture(scope="module")
def ri():
    return pd.read_csv(TABLES / "ri.csv").set_index(["model", "method", "target"])


def test_training_is_finished_everywhere_and_nothing_is_marked(ri):
    """With line art among the targets.

    Every method that trains knows the drawings that it trained on.
    """
    fit = pd.read_csv(TABLES / "fit.csv")
    trained = fit[fit["method"].isin(["ft", "linear_probe"])]
    assert set(trained["target"]) == set(ri.index.unique("target")) >= {"fluent_high_contrast"}
    assert (trained["fit"] >= 95).all() and (fit["underfitted"] == "no").all()
    page = (ROOT / "reports/emoji/index.html").read_text()
    assert "reached the threshold of 95 %" in page and "transfer between vendors" in page
    tables = [pd.read_csv(path) for path in TABLES.glob("*.csv")]
    assert all(
        (table["underfitted"].isin([0, "no"])).all() for table in tables if "underfitted" in table
    )


def test_no_prediction_is_a_class_that_its_dataset_lacks():
    prepared = ROOT / "results/emoji/prepare"
    for path in (ROOT / "results/emoji/paper/evaluate").rglob("*.parquet"):
        rows = pd.read_parquet(path, columns=["dataset", "prediction"])
        for dataset, most in rows.groupby("dataset", observed=True)["prediction"].max().items():
            (classes,) = {
                len(json.loads(file.read_text())["keys"])
                for file in prepared.glob(f"{dataset}/*/classes.json")
            }
            assert 0 <= most < classes, (path, dataset)


def test_ri_is_the_mean_change_on_the_other_datasets(ri):
    accuracy = pd.read_csv(TABLES / "accuracy.csv").set_index(
        ["model", "method", "target", "dataset"]
    )["accuracy"]
    for (model, method, target), line in ri.iterrows():
        change = (accuracy[model, method, target] - accuracy[model, "pretrained", "none"]).drop(
            target
        )
        assert line["ri"] == pytest.approx(change.mean(), abs=1e-5)
        assert line["ci_low"] <= line["ri"] <= line["ci_high"]


def test_the_pretrained_models_see_far_more_than_chance():
    accuracy = pd.read_csv(TABLES / "accuracy.csv")
    pretrained = accuracy[accuracy["method"] == "pretrained"].groupby("model")["accuracy"].mean()
    assert (pretrained > 10).all(), "chance is 1 % for 97 classes, the fewest"


def test_mri_json_and_csv_agree():
    table = pd.read_csv(TABLES / "mri.csv")
    nested = json.loads((TABLES / "mri.json").read_text())
    for line in table.itertuples():
        assert nested[line.model][line.method] == pytest.approx(line.mri, abs=1e-6)


def test_figures_and_pages_are_there():
    figures = ("protocol", "before_after", "radar", "ri_matrix", "accuracy_matrix", "examples")
    for figure in (*figures, "ranking", "cost", "training"):
        for ending in ("png", "pdf", "csv"):
            assert (ROOT / f"reports/emoji/figures/{figure}.{ending}").stat().st_size > 200
    for page in ("index", "report"):
        assert "</html>" in (ROOT / f"reports/emoji/{page}.html").read_text()
