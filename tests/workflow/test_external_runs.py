"""Weights that were trained elsewhere, scored beside runs of the tiny family.

They are the family's own checkpoints, given back as files.
"""

import os
import re
import shutil

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from rib.base.files import read_json
from rib.models.checkpoint import xor_decompress
from tiny.projects.project import Project, jobs, rows_of

pytestmark = pytest.mark.thorough

CHOICES = ("methods=[ft,half]", "external=[theirs/weights.csv]", "catalog=[mine,theirs]")
RUN = "results/tiny/paper/{stage}/tiny_cnn/{target}/{method}/all/0/{file}"
HALF = {
    "label": "Half of theirs",
    "algorithm": "wise_ft",
    "form": "coefficients",
    "settings": {"alpha": 0.5},
    "parents": ["theirs"],
    "source": "tests",
    "style": {"colour": "#000000", "marker": "x"},
}


def path(project, stage, target, method, file):
    return project.folder / RUN.format(stage=stage, target=target, method=method, file=file)


def tuned(project, target, method="ft"):
    """The whole state dict of a run, put together from its checkpoint."""
    start = safetensors.torch.load_file(
        project.folder / "results/tiny/models/tiny_cnn/weights.safetensors"
    )
    stored = safetensors.torch.load_file(
        path(project, "finetune", target, method, "checkpoint.safetensors")
    )
    return {**start, **xor_decompress(stored, start)}


def table(project, name, *rows):
    (project.folder / "theirs").mkdir(exist_ok=True)
    text = "\n".join(["model,target,method,seed,file,label", *rows])
    (project.folder / f"theirs/{name}.csv").write_text(text + "\n")


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory):
    """A finished project that has scored a pickle, and a folder of `snakemake export`.

    Do not change it.
    """
    folder = tmp_path_factory.mktemp("scored") / "project"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    project = Project(folder)
    rows = (
        "tiny_cnn,red,theirs,0,red.pth,Their method",
        "tiny_cnn,green,theirs,0,exported,Their method",
    )
    table(project, "weights", *rows)
    (folder / "theirs/exported").mkdir()
    torch.save(tuned(project, "red"), folder / "theirs/red.pth")
    safetensors.torch.save_file(
        tuned(project, "green"), folder / "theirs/exported/model.safetensors"
    )
    (folder / "theirs/methods.yaml").write_text(yaml.safe_dump({"half": HALF}))
    printed = project.snakemake("--cores", "2", config=CHOICES)
    made = jobs(printed)
    assert made["import_checkpoint"] == 2 and "finetune" not in made
    return project


@pytest.fixture
def to_change(scored, tmp_path):
    shutil.copytree(scored.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_the_same_weights_have_the_same_rows_and_ri(scored):
    for one, other in (("ft", "theirs"), ("wise_ft", "half")):
        for target in ("red", "green"):
            files = (
                path(scored, "evaluate", target, method, "tiny.parquet") for method in (one, other)
            )
            ours, theirs = (rows_of(file).drop(columns="method") for file in files)
            pd.testing.assert_frame_equal(ours, theirs)
            if one == "ft":
                files = (
                    path(scored, "finetune", target, method, "manifest.json")
                    for method in (one, other)
                )
                fits = [read_json(file)["fit"] for file in files]
                assert fits[0] == fits[1]
                same = [tuned(scored, target, method) for method in (one, other)]
                assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
    ri = pd.read_csv(scored.folder / "reports/tiny/tables/ri.csv").set_index(["method", "target"])
    columns = ["ri", "ci_low", "ci_high", "n", "fit"]
    assert (ri.loc["ft", columns] == ri.loc["theirs", columns]).all(
        axis=None
    ) and "half" in ri.index
    pd.testing.assert_frame_equal(ri.loc["ft", columns], ri.loc["theirs", columns])


def test_the_page_shows_the_method_and_analyses_of_training_leave_it_out(scored):
    tables = scored.folder / "reports/tiny/tables"
    assert "Their method" in (scored.folder / "reports/tiny/index.html").read_text()
    assert "Their method" in (tables / "summary.md").read_text()
    for name in ("training", "cost"):
        assert set(pd.read_csv(tables / f"{name}.csv")["method"]) == {"ft"}
    assert not path(scored, "finetune", "red", "theirs", "history.csv").exists()


def test_weights_of_others_are_exported_like_ones_own(scored):
    exported = scored.planned("export", config=CHOICES)["export_run"]
    assert exported == len(pd.read_csv(scored.folder / "reports/tiny/tables/ri.csv"))


def test_nothing_is_left_to_do_and_all_files_match_their_records(scored):
    assert "Nothing to be done" in scored.snakemake("-n", config=CHOICES)
    assert "all files match their records" in scored.rib("verify", config=CHOICES)
    planned = scored.rib("plan", config=CHOICES)
    assert "Training   80 images" in planned, "of the two runs of ft"


def listed(printed, rule):
    """Target and method or entry of a rule's jobs in what Project.listed printed."""
    blocks = re.findall(rf"^rule {rule}:\n((?:    .*\n)+)", printed, re.M)
    return {
        (re.search(r"target=(\w+)", block)[1], re.search(r"(?:method|entry)=(\w+)", block)[1])
        for block in blocks
    }


def test_a_changed_file_re_runs_its_run_alone(to_change):
    state = tuned(to_change, "red")
    torch.save(
        {key: t * 1.01 if "classifier" in key else t for key, t in state.items()},
        to_change.folder / "x",
    )
    os.utime(to_change.folder / "x", (1, 1))  # older than what was made of the other
    (to_change.folder / "x").replace(to_change.folder / "theirs/red.pth")
    printed = to_change.listed(config=CHOICES)
    assert listed(printed, "import_checkpoint") == {("red", "theirs")}
    assert listed(printed, "evaluate") == {("red", "theirs"), ("red", "half")}
    rows = RUN.format(stage="evaluate", target="red", method="theirs", file="tiny.parquet")
    before = (to_change.folder / rows).read_bytes()
    to_change.snakemake(rows, "--cores", "1", config=CHOICES)
    assert (to_change.folder / rows).read_bytes() != before


def test_a_second_table_runs_only_what_is_new(to_change):
    table(
        to_change, "more", *(f"tiny_cnn,{target},others,0,red.pth," for target in ("red", "green"))
    )
    printed = to_change.listed(
        config=(CHOICES[0], "external=[theirs/weights.csv,theirs/more.csv]", CHOICES[2])
    )
    new = {("red", "others"), ("green", "others")}
    assert listed(printed, "import_checkpoint") == listed(printed, "evaluate") == new


def test_pulled_checkpoints_need_no_files(to_change):
    shutil.rmtree(to_change.folder / "theirs/exported")
    (to_change.folder / "theirs/red.pth").unlink()
    assert "Nothing to be done" in to_change.snakemake("-n", config=CHOICES)
