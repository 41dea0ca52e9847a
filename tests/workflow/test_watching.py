"""Trainings that are watched while the workflow runs; what is asked for repeats no training."""

import json
import re

import pytest

from rib.base.files import read_json
from tiny.projects import family
from tiny.projects.project import ROOT, Project, copy_project

pytestmark = pytest.mark.thorough

RUN = "paper/finetune/tiny_cnn/red/ft/all/0"
HELD_OUT = "held_out/finetune/tiny_cnn/red/ft/all/0"
MONITOR = ("datasets=[red,green]", "monitor=[green]")


def test_docs_show_the_folder_with_the_event_files_of_all_trainings(finished):
    """Three methods on two targets; tests/unit/test_watch.py reads such files with TensorBoard."""
    project, _ = finished
    page = (ROOT / "docs/cluster.md").read_text()
    (folder,) = re.findall(r"^tensorboard --logdir (\w+)$", page, re.M)
    files = list((project.folder / folder).rglob("events.out.tfevents.*"))
    trainings = {str(file.parent.relative_to(project.folder / folder)) for file in files}
    assert len(files) == len(trainings) == 6
    assert f"tiny/{RUN}" in trainings


def test_monitoring_is_in_no_record_and_repeats_no_training(project):
    training = f"results/tiny/{RUN}/manifest.json"
    # given a monitored dataset that is prepared
    green = f"results/tiny/prepare/green/{family.SIZE}px-bicubic-crop1/manifest.json"
    project.snakemake(green, "--cores", "1", config=MONITOR)
    # when
    project.snakemake(training, "--cores", "1", config=MONITOR)
    # then it has a curve
    record = read_json((project.folder / training).with_name("provenance.json"))
    assert not any("green" in path for path in record["inputs"])
    assert "monitor" not in json.dumps(record["cfg"])
    (file,) = (project.folder / f"logs/tiny/{RUN}").glob("events.out.tfevents.*")
    assert b"monitor/green" in file.read_bytes() and b"train/loss" in file.read_bytes()
    # and whatever is monitored, the training is done
    for monitor in ("[]", "[red]", "[green,red]"):
        config = ("datasets=[red,green]", f"monitor={monitor}")
        assert "Nothing to be done" in project.snakemake(training, "-n", config=config), monitor


def test_a_dataset_that_holds_the_pretraining_proxy_is_monitored_under_held_out(tmp_path):
    # given: twelve images per class, of which the proxy is two of green's
    folder = copy_project(tmp_path / "project")
    family.make(folder / "mine", images_per_class=12)
    project = Project(folder)
    project.edit(
        "mine/families/tiny.yaml",
        "reference: memory",
        "reference: {part_of: green, images_per_class: 2}",
    )
    held_out = ("protocol=held_out", "methods=[ft]")
    training = f"results/tiny/{HELD_OUT}/manifest.json"
    splits = [
        f"results/tiny/held_out/split/{name}/{family.SIZE}px-bicubic-crop1.parquet"
        for name in ("green", "blue")
    ]
    project.snakemake(*splits, "--cores", "1", config=held_out)
    # when
    project.snakemake(training, "--cores", "1", config=(*held_out, "monitor=[green,blue]"))
    # then: both have curves, the record says nothing of them, and the training is not repeated
    # without them
    (events,) = (folder / f"logs/tiny/{HELD_OUT}").glob("events.out.tfevents.*")
    assert b"monitor/green" in events.read_bytes() and b"monitor/blue" in events.read_bytes()
    assert "cannot be watched" not in (folder / f"logs/tiny/{HELD_OUT}.log").read_text()
    record = read_json((folder / training).with_name("provenance.json"))
    assert not any("green" in path or "blue" in path for path in record["inputs"])
    assert "Nothing to be done" in project.snakemake(training, "-n", config=held_out)


def test_an_unknown_dataset_is_refused_in_a_sentence(project):
    printed = project.snakemake("-n", config=("monitor=[gren]",), check=False)
    (sentence,) = [line for line in printed.splitlines() if "config, monitor" in line]
    assert "gren" in sentence and "green" in sentence and "Traceback (most" not in printed
