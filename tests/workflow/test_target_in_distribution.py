"""A training set in distribution as a target, on the tiny family: `memory`, tested on `usual`."""

import re

import pandas as pd
import pytest
import yaml

from rib.analyses.in_1k import describe as in_1k
from rib.analyses.robustness import describe as robustness
from rib.base.errors import UserError
from tiny.projects.project import rows_of

USUAL = {
    "family": "tiny",
    "label": "Usual",
    "role": "in_distribution",
    "archives_of": "memory",
    "layout": "class_folders",
    "evaluation_group": "tiny",
    "licence": "none",
    "origin": "tests",
}
OOD = ["red", "green", "blue", "copy"]
METHODS = "methods=[ft,wise_ft_curve]"
CONFIG = ("targets=[red,memory]", METHODS, "seeds=[0,1]")
ALONE = ("targets=[memory]", METHODS, "seeds=[0,1]")


@pytest.fixture
def own(project):
    """A project whose reference dataset names its test set."""
    file = project.folder / "mine/datasets.yaml"
    entries = yaml.safe_load(file.read_text())
    entries["memory"]["test"] = "usual"
    file.write_text(yaml.safe_dump({**entries, "usual": USUAL}))
    return project


def test_a_training_set_is_a_target_only_by_name(own):
    grid = own.grid(*CONFIG)
    assert grid.targets == ["red"]
    assert grid.id_targets == ["memory"]
    assert {run.target for run in grid.runs()} == {"none", "red", "memory"}
    assert {run.target for run in grid.of_ood_targets.runs()} == {"none", "red"}
    for choice in ("all", "default"):
        assert own.grid(f"targets={choice}").id_targets == []


def test_a_training_set_without_test_set_is_refused(project):
    with pytest.raises(UserError, match="'memory'.*key test"):
        project.grid("targets=[memory]")


@pytest.mark.parametrize("test", ["red", "unknown"])
def test_only_a_dataset_in_distribution_is_a_test_set(own, test):
    own.edit("mine/datasets.yaml", "  test: usual\n", f"  test: {test}\n")
    with pytest.raises(UserError, match="datasets.yaml, memory, test"):
        own.grid(*CONFIG)


def test_the_test_set_must_be_evaluated(own):
    with pytest.raises(UserError, match="'usual'"):
        own.grid(*CONFIG, "datasets=[red,green]")


def test_methods_that_read_the_target_as_reference_are_refused(own):
    replay = (CONFIG[0], "methods=[ft,replay]")
    with pytest.raises(UserError, match="'replay'.*reference to none"):
        own.grid(*replay)
    ewc = (CONFIG[0], "methods=[ewc]")
    with pytest.raises(UserError, match="'ewc'"):
        own.grid(*ewc)
    assert "ewc" in own.grid(*ewc, "reference=none").methods


def ri_of_rows(project, run):
    """RI of a run by a plain loop over its evaluation rows and those of the pretrained model."""
    folder = project.folder / "results/tiny/paper/evaluate/tiny_cnn"
    changes = []
    for dataset in OOD:
        accuracies = []
        for name in ("none/pretrained/all/0", run):
            (file,) = (folder / name).glob("*.parquet")
            rows = rows_of(file)
            rows = rows[rows["dataset"] == dataset]
            accuracies.append(100 * (rows["prediction"] == rows["label"]).mean())
        before, after = accuracies
        changes.append(after - before)
    return sum(changes) / len(changes)


@pytest.mark.thorough
def test_its_ri_is_over_all_other_datasets_and_in_no_mean(own):
    assert "2 targets" in own.rib("plan", config=CONFIG)
    own.snakemake("--cores", "2", config=CONFIG)
    tables = own.folder / "reports/tiny/tables"
    ri = pd.read_csv(tables / "ri.csv")
    of_training_set = ri[ri["target"] == "memory"]
    assert set(of_training_set["target_role"]) == {"in_distribution"}
    assert set(ri.loc[ri["target"] == "red", "target_role"]) == {"ood"}
    assert len(of_training_set) == 2
    for row in of_training_set.to_dict("records"):
        run = f"memory/{row['method']}/all/{row['seed']}"
        assert row["ri"] == pytest.approx(ri_of_rows(own, run), abs=1e-4)
    mri = pd.read_csv(tables / "mri.csv").set_index("method")
    assert mri.loc["ft", "targets"] == 1
    ri_of_red = ri[(ri["target"] == "red") & (ri["method"] == "ft")]["ri"]
    assert mri.loc["ft", "mri"] == pytest.approx(ri_of_red.mean(), abs=1e-4)
    for name in ("accuracy", "fit", "comparisons_ri"):
        assert "memory" not in set(pd.read_csv(tables / f"{name}.csv")["target"])


@pytest.mark.thorough
def test_without_another_target_its_table_stands_alone(own):
    own.snakemake("--cores", "2", config=ALONE)
    tables = own.folder / "reports/tiny/tables"
    assert set(pd.read_csv(tables / "ri.csv")["target"]) == {"memory"}
    assert pd.read_csv(tables / "mri.csv").empty
    # and the page shows tables with rows alone, and names the others
    page = (own.folder / "reports/tiny/index.html").read_text()
    shown = re.findall(r"<summary>Table: (.*?)</summary>", page)
    assert in_1k.IN_1K.title in shown
    assert robustness.RI.title in shown
    assert robustness.MRI.title not in shown
    assert robustness.MRI.title in page
    assert "<tbody>\n</tbody>" not in page
    assert 'id="in_1k"' in page


@pytest.mark.thorough
def test_the_figure_has_every_network_if_only_parts_of_the_target_were_trained_on(own):
    # given runs on three images, and none on all
    figure = "reports/tiny/figures/in_1k.png"
    own.snakemake("--cores", "2", figure, config=("targets=[memory]", METHODS, "train_subset=[3]"))
    # then the network before and both methods are in it
    points = pd.read_csv(own.folder / figure.replace(".png", ".csv"), dtype={"size": str})
    sizes = points.groupby("method")["size"].unique().map(list).to_dict()
    assert sizes == {"pretrained": ["all"], "ft": ["3"], "wise_ft_curve": ["3"]}
    of_ft = points[points["method"] == "ft"].iloc[0]
    end_of_curve = points[points["alpha"] == 1].iloc[0]
    for measure in ("id", "ood"):
        assert end_of_curve[measure] == pytest.approx(of_ft[measure], abs=1e-4)


@pytest.mark.thorough
def test_in_1k_has_accuracy_in_and_out_of_distribution_over_seeds(own):
    table, figure = "reports/tiny/tables/in_1k.csv", "reports/tiny/figures/in_1k.png"
    own.snakemake("--cores", "2", table, figure, config=ALONE)
    of_states = pd.read_csv(own.folder / table)
    datasets = list(of_states["dataset"].unique())
    assert datasets == ["usual", *own.grid(*ALONE).ood, "mean"]
    assert (of_states.loc[of_states["method"] != "pretrained", "seeds"] == 2).all()
    of_curve = of_states[of_states["method"] == "wise_ft_curve"]
    assert of_curve["alpha"].notna().all() and of_curve["alpha"].nunique() > 2
    folder = own.folder / "results/tiny/paper/evaluate/tiny_cnn/memory/ft/all"
    accuracies = {}
    for seed in (0, 1):
        (file,) = (folder / str(seed)).glob("*.parquet")
        rows = rows_of(file)
        right = rows["prediction"] == rows["label"]
        accuracies[seed] = 100 * right.groupby(rows["dataset"]).mean()
    of_ft = of_states[of_states["method"] == "ft"].set_index("dataset")
    for dataset in ("usual", *OOD):
        values = [accuracies[seed][dataset] for seed in (0, 1)]
        assert of_ft.loc[dataset, "accuracy"] == pytest.approx(sum(values) / 2, abs=1e-4)
        spread = abs(values[0] - values[1]) / 2**0.5
        assert of_ft.loc[dataset, "accuracy_sd"] == pytest.approx(spread, abs=1e-4)
    means = [accuracies[seed][OOD].mean() for seed in (0, 1)]
    assert of_ft.loc["mean", "accuracy"] == pytest.approx(sum(means) / 2, abs=1e-4)
    assert of_ft["ece"].between(0, 100).all()
    own.rib("preview", config=ALONE)
    page = (own.folder / "reports/tiny/preview/index.html").read_text()
    assert "Memory" in page
