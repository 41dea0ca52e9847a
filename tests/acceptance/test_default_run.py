"""What `make run` has made says what the emoji family is known to say. Run after it: pytest tests/acceptance."""

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "reports/emoji/tables"


@pytest.fixture(scope="module")
def ri():
    return pd.read_csv(TABLES / "ri.csv").set_index(["model", "method", "target"])


def test_line_art_loses_and_colour_drawings_gain(ri):
    """Signs that a separate trial with another script found: RI of ft on Lite0."""
    ft = ri.loc["efficientnet_lite0", "ft"]
    assert ft.loc["fluent_high_contrast", "ci_high"] < 0
    assert ft.loc["noto", "ci_low"] > 0 and ft.loc["twemoji", "ci_low"] > 0


def test_wise_ft_rescues_half_of_what_line_art_costs(ri):
    lost, rescued = (ri.loc["efficientnet_lite0", method, "fluent_high_contrast"]["ri"] for method in ("ft", "wise_ft"))
    assert lost < rescued < 0


def test_the_pretrained_models_see_far_more_than_chance():
    accuracy = pd.read_csv(TABLES / "accuracy.csv")
    pretrained = accuracy[accuracy["method"] == "pretrained"].groupby("model")["accuracy"].mean()
    assert (pretrained > 10).all(), "chance is 0.5 % for 200 classes"


def test_every_method_gains_and_lwf_least():
    """On both models: the mean over targets is better than no fine-tuning, and full fine-tuning better than LwF."""
    ranking = pd.read_csv(TABLES / "ranking.csv").set_index(["model", "method"])
    for model in ranking.index.unique("model"):
        lines = ranking.loc[model]
        assert (lines["pretrained"] == "better").all() and lines.index[-1] == "lwf"
        assert not set(lines.loc["ft", "ties"]) & set(lines.loc["lwf", "ties"])


def test_mri_json_and_csv_agree():
    table = pd.read_csv(TABLES / "mri.csv")
    nested = json.loads((TABLES / "mri.json").read_text())
    for line in table.itertuples():
        assert nested[line.model][line.method] == pytest.approx(line.mri, abs=1e-6)


def test_every_fine_tuned_method_but_ft_on_line_art_learned_its_target(ri):
    accuracy = pd.read_csv(TABLES / "accuracy.csv").set_index(["model", "method", "target", "dataset"])["accuracy"]
    for model, method, target in ri.index:
        own = accuracy[model, method, target, target]
        if target != "fluent_high_contrast":
            assert own > accuracy[model, "pretrained", "none", target], (model, method, target)


def test_figures_and_pages_are_there():
    figures = ("protocol", "before_after", "radar", "ri_matrix", "accuracy_matrix", "examples")
    for figure in (*figures, "ranking", "cost", "training"):
        for ending in ("png", "pdf", "csv"):
            assert (ROOT / f"reports/emoji/figures/{figure}.{ending}").stat().st_size > 200
    for page in ("index", "report"):
        assert "</html>" in (ROOT / f"reports/emoji/{page}.html").read_text()


def test_the_readmes_numbers_are_those_of_the_run(ri):
    """Other processors round differently and training amplifies it: within 3 points, half an interval's width."""
    shown = pd.read_csv(ROOT / "reports/default_run/ri.csv").set_index(["model", "method", "target"])
    assert shown.index.equals(ri.index)
    assert (shown["ri"] - ri["ri"]).abs().max() < 3, "stale: run `make example`"
