"""Agreement and flips of a run, beside its accuracies and its page."""

import pandas as pd
import pytest

from tiny.projects.project import FIGURES

pytestmark = pytest.mark.thorough


def test_flips_explain_every_change_of_accuracy_and_mri(finished):
    folder = finished[0].folder / "reports/tiny/tables"
    samples, flips, accuracy, mri = (
        pd.read_csv(folder / f"{name}.csv") for name in ("samples", "flips", "accuracy", "mri")
    )
    before = accuracy.query("method == 'pretrained'").set_index("dataset")["accuracy"]
    both = samples.merge(
        accuracy, on=["model", "method", "target", "size", "seed", "dataset", "n", "conditions"]
    )
    assert len(both) == len(samples) == 4 * 2 * 4
    change = both["accuracy"] - both["dataset"].map(before)
    assert (both["wrong_to_right"] - both["right_to_wrong"]).tolist() == pytest.approx(
        change.tolist(), abs=1e-5
    )
    means = flips.merge(mri, on=["model", "method", "size", "conditions"])
    assert len(means) == len(mri) == 4
    assert (means["wrong_to_right"] - means["right_to_wrong"]).tolist() == pytest.approx(
        means["mri"].tolist(), abs=1e-5
    )


def test_scores_and_classes_agree_with_accuracies(finished):
    folder = finished[0].folder / "reports/tiny/tables"
    names = ("scores", "mean_scores", "classes", "worst_classes", "accuracy", "mri", "ri")
    found = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    both = found["scores"].merge(
        found["accuracy"], on=["model", "method", "target", "size", "seed", "dataset", "n"]
    )
    assert len(both) == 4 * 2 * 4
    assert both["top1_after"].tolist() == pytest.approx(both["accuracy"].tolist(), abs=1e-5)
    means = found["mean_scores"].merge(found["mri"], on=["model", "method", "size"])
    assert (
        means["top1_change"].tolist() == pytest.approx(means["mri"].tolist(), abs=1e-5)
        and len(means) == 4
    )
    assert means["top5_before"].isna().all(), "five classes"
    classes = found["classes"]
    assert set(classes.groupby(["method", "dataset"]).size()) == {5} and set(classes["n"]) == {4}
    for method, part in classes.groupby(
        "method"
    ):  # each dataset weighs as often as it is not the target
        after = both[(both["method"] == method) & (both["target"] != both["dataset"])].groupby(
            "dataset"
        )["top1_after"]
        weighed = part.groupby("dataset")["after"].mean()
        assert weighed.tolist() == pytest.approx(after.mean()[weighed.index].tolist(), abs=1e-5)
    assert (found["worst_classes"]["change"] < 0).all() and "fit" in found["worst_classes"]


def test_a_grid_without_fine_tuning_has_empty_tables_and_no_figures(finished_copy):
    config = ("methods=[pretrained]",)
    assert not FIGURES.keys() & finished_copy.planned(config=config).keys()
    finished_copy.snakemake("tables", "--cores", "2", config=config)
    folder = finished_copy.folder / "reports/tiny/tables"
    assert pd.read_csv(folder / "samples.csv").empty
    assert pd.read_csv(folder / "flips.csv").empty
