"""Merges over seeds, sweeps and targets, end to end on the tiny family.

Which checkpoints they are made of is tested, too.
"""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

import rib
from tiny.projects import family
from tiny.projects.project import Project, copy_project, jobs, rows_of

pytestmark = pytest.mark.thorough

MERGES = "methods=[soup_seeds,soup_sweep,greedy_soup_sweep,soup_targets]"
CHOICES = (
    "protocol=held_out",
    "models=[tiny_vit]",
    "targets=[red,green]",
    "seeds=[1,0]",
    "training={epochs: 1}",
    MERGES,
)
CONFIG = (*CHOICES, "method_settings={ft: {lr: [0.001, 0.003]}}")
TABLES = "reports/tiny_held_out/tables"


def parents(printed, rule, output):
    """The runs whose checkpoints' manifests are inputs of a job that a dry-run lists.

    Args:
        output: the first one of the job, without the folder of the results.
    """
    blocks = re.findall(rf"^rule {rule}:\n((?:    .*\n)+)", printed, re.M)
    (block,) = (block for block in blocks if f"output: results/tiny/held_out/{output}" in block)
    inputs = re.search("input: (.*)", block)[1]
    return re.findall(r"results/tiny/held_out/finetune/tiny_vit/(\S+)/manifest\.json", inputs)


def test_each_merge_waits_for_the_checkpoints_of_its_parents(project):
    printed = project.listed(config=CONFIG)
    of_seeds = "evaluate/tiny_vit/red/soup_seeds-lr0.003/all/1/tiny.parquet"
    seeds = parents(printed, "evaluate", of_seeds)
    assert seeds == ["red/ft-lr0.003/all/1", "red/ft-lr0.003/all/0"]
    for rule, output in (
        ("evaluate", "evaluate/tiny_vit/green/soup_sweep/all/0/tiny.parquet"),
        ("select_coefficients", "merge/tiny_vit/green/greedy_soup_sweep/all/0/selection.json"),
    ):
        assert parents(printed, rule, output) == [
            "green/ft-lr0.001/all/0",
            "green/ft-lr0.003/all/0",
        ]
    of_targets = "evaluate_over_targets/tiny_vit/none/soup_targets-lr0.001/all/0/tiny.parquet"
    targets = parents(printed, "evaluate_over_targets", of_targets)
    assert targets == ["red/ft-lr0.001/all/0", "green/ft-lr0.001/all/0"]
    planned = jobs(printed)
    assert planned["finetune"] == 2 * 2 * 2 and planned["select_coefficients"] == 2 * 2
    over_seeds = 2 * 2  # targets and variants
    over_sweep = 2 * 2  # targets and seeds
    over_targets = 2 * 2  # variants and seeds
    assert planned["evaluate"] == 1 + 8 + over_seeds + 2 * over_sweep
    assert planned["evaluate_over_targets"] == over_targets
    assert planned["analyse_over_targets"] == 1


def test_without_parents_there_is_no_merge(project):
    one = ("models=[tiny_vit]", "targets=[red]", "methods=all", "recipes=[paper]")
    printed = project.listed(config=one)
    for name in ("soup_seeds", "soup_sweep", "greedy_soup_sweep", "soup_targets"):
        assert f"method '{name}' is left out: " in printed and f"method={name}" not in printed
    assert not {"evaluate_over_targets", "analyse_over_targets"} & jobs(printed).keys()
    said = project.snakemake(
        "-n",
        config=(*CHOICES[:2], "targets=[red,green,blue]", "methods=[soup_targets]"),
        check=False,
    )
    assert "'soup_targets' cannot be run" in said and "Traceback (most" not in said


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A project with twelve images per class, run under held_out with merges of all kinds."""
    folder = copy_project(tmp_path_factory.mktemp("merged") / "project")
    family.make(folder / "mine", images_per_class=12)
    project = Project(folder)
    project.snakemake("tables", config=CONFIG)
    return project


def table(project, name):
    return pd.read_csv(project.folder / f"{TABLES}/{name}.csv", dtype={"size": str})


def test_merges_name_parents_by_what_they_differ_in(merged):
    runs = merged.folder / "results/tiny/held_out"
    # By merge, the runs of which it has the checkpoints, by the names that it has for them.
    expected_parents = {
        "evaluate/tiny_vit/red/soup_seeds-lr0.001/all/1": {
            f"ft-lr0.001, seed {seed}": f"red/ft-lr0.001/all/{seed}" for seed in (1, 0)
        },
        "evaluate/tiny_vit/green/soup_sweep/all/0": {
            f"ft-lr{lr}": f"green/ft-lr{lr}/all/0" for lr in (0.001, 0.003)
        },
        "evaluate_over_targets/tiny_vit/none/soup_targets-lr0.003/all/0": {
            f"ft-lr0.003, target {target}": f"{target}/ft-lr0.003/all/0"
            for target in ("red", "green")
        },
    }
    for run, run_of_parent in expected_parents.items():
        manifest = json.loads((runs / run / "tiny.manifest.json").read_text())
        (network,) = manifest["networks"]
        assert network["coefficients"] == dict.fromkeys(run_of_parent, 0.5)
        assert manifest["fit"].keys() == run_of_parent.keys()
        record = json.loads((runs / run / "tiny.provenance.json").read_text())
        hash_of_checkpoint = {
            path: digest
            for path, digest in record["inputs"].items()
            if path.endswith("/checkpoint.safetensors")
        }
        assert set(hash_of_checkpoint) == {
            f"results/tiny/held_out/finetune/tiny_vit/{parent_run}/checkpoint.safetensors"
            for parent_run in run_of_parent.values()
        }
        assert len(set(hash_of_checkpoint.values())) == 2
    selection_file = runs / "merge/tiny_vit/red/greedy_soup_sweep/all/0/selection.json"
    greedy = json.loads(selection_file.read_text())
    assert {name for found in greedy["candidates"] for name in found["coefficients"]} == {
        "ft-lr0.001",
        "ft-lr0.003",
    }


def test_a_merge_over_seeds_has_no_spread_and_is_compared_with_means_over_seeds(merged):
    mri, compared = table(merged, "mri").set_index("method"), table(merged, "comparisons")
    assert not [name for name in mri.index if "soup_targets" in name]
    assert mri["seeds"].to_dict() == {name: 1 if "soup_seeds" in name else 2 for name in mri.index}
    assert mri["seed_sd"].isna().to_dict() == {name: "soup_seeds" in name for name in mri.index}
    of_merges = compared["method"].str.contains("soup_seeds") | compared["other"].str.contains(
        "soup_seeds"
    )
    assert (
        of_merges.sum() > 4
        and set(compared["seeds"][of_merges]) == {1}
        and set(compared["seeds"][~of_merges]) == {2}
    )
    values = mri["mri"].to_dict() | {"pretrained": 0.0}
    apart = compared["method"].map(values) - compared["other"].map(values)
    assert compared["difference"].to_numpy() == pytest.approx(apart.to_numpy(), abs=1e-5)


def test_a_merge_over_targets_is_scored_on_blue_alone(merged):
    """`copy` shares its source images with red."""
    found = table(merged, "merges_over_targets")
    assert len(found) == 4 and set(found["datasets"]) == {1} and set(found["seed"]) == {0, 1}
    runs = merged.folder / "results/tiny/held_out"
    before = rows_of(runs / "evaluate/tiny_vit/none/pretrained/all/0/tiny.parquet").query(
        "dataset == 'blue'"
    )
    for line in found.itertuples():
        path = (
            runs / f"evaluate_over_targets/tiny_vit/none/{line.method}/all/{line.seed}/tiny.parquet"
        )
        after = rows_of(path)
        assert set(after["dataset"]) == {"blue"} and len(after) == len(before) == line.images
        means = [100 * np.mean(rows["rank"] == 0) for rows in (before, after)]
        assert [line.before, line.after] == pytest.approx(means, abs=1e-5)
        assert line.difference == pytest.approx(means[1] - means[0], abs=1e-5)
        assert line.ci_low <= line.difference <= line.ci_high
    for name in ("accuracy", "ri", "fit"):
        assert not table(merged, name)["method"].str.contains("soup_targets").any()


def test_networks_of_merges_are_loaded_in_python(merged):
    line = table(merged, "merges_over_targets").iloc[0]
    over_targets = f"none/{line['method']}/all/{line['seed']}"
    for run in ("red/soup_seeds-lr0.001/all/1", "green/soup_sweep/all/0", over_targets):
        name = f"tiny/held_out/tiny_vit/{run}"
        assert isinstance(rib.load_network(merged.folder, name), torch.nn.Module)
        assert len(rib.load_rows(merged.folder, name))


def test_made_once_merges_are_not_made_again(merged):
    assert merged.planned("tables", config=CONFIG) == {}
