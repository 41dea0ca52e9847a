"""A dataset that is evaluated in parts, end to end on the tiny family.

Its images are in turn of five severities, so that a batch has images of several parts.
"""

import os
import signal
import sys
from dataclasses import dataclass

import pandas as pd
import pytest
import yaml

import rib
from tiny.projects import family
from tiny.projects.project import Project, copy_project
from tiny.projects.waiting import wait_until

pytestmark = pytest.mark.slow

LAYOUT = """
from dataclasses import replace

from rib.data.layouts import class_folders

def items(dataset):
    for number, item in enumerate(class_folders.items(dataset)):
        yield replace(item, slices={"level": number % 5 + 1})
"""
PARTS = {"calm": [1, 2], "windy": [3], "stormy": [4], "raging": [5]}
CHOICES = ("targets=[red]", "methods=[ft,wise_ft_curve]", "compute={evaluation_batch_size: 3}")
SNAKEMAKE = (sys.executable, "-m", "snakemake")
CONFIG = ("--config", "family=tiny", "catalog=mine", *CHOICES)
RUNS = ("none/pretrained", "red/ft", "red/wise_ft_curve")
EVALUATED = "results/tiny/paper/evaluate/tiny_cnn"
ROWS_OF_PARTS = [f"{EVALUATED}/red/ft/all/0/green-{part}.parquet" for part in PARTS]
# Besides the page with its tables and figures; it has accuracies by slice.
TARGETS = ("all", "slices")


def set_parts(project, parts):
    """Let `green` be evaluated by itself, in parts or as a whole."""
    path = project.folder / "mine/datasets.yaml"
    entries = yaml.safe_load(path.read_text())
    entries["green"]["layout"] = "sliced"
    entries["green"].pop("evaluation_group", None)
    entries["green"].pop("parts", None)
    if parts is not None:
        entries["green"]["parts"] = {"column": "level", "levels": parts}
    path.write_text(yaml.safe_dump(entries))


def results_of(project):
    """Bytes of all tables, figures and other results that do not tell times or files of rows."""
    return {
        path: content for path, content in project.products().items() if "/evaluate/" not in path
    }


def rows_of_runs(project):
    """Rows of all runs, as `rib` gives them."""
    tables = []
    for run in RUNS:
        tables.append(rib.load_rows(project.folder, f"tiny/paper/tiny_cnn/{run}/all/0"))
    return tables


@dataclass
class Outcome:
    """What a run has made."""

    results: dict
    rows: list


def outcome(project):
    """What a run has made."""
    return Outcome(results_of(project), rows_of_runs(project))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project, and what a run made there that nothing disturbed and that knew no parts."""
    project = Project(tmp_path_factory.mktemp("parts") / "project")
    family.make(copy_project(project.folder) / "mine")
    (project.folder / "mine/layouts").mkdir()
    (project.folder / "mine/layouts/sliced.py").write_text(LAYOUT)
    set_parts(project, None)
    project.snakemake(*TARGETS, "--cores", "2", config=CHOICES)
    return project


def test_a_run_in_parts_goes_on_where_it_was_killed_to_the_same_results(project):
    whole = outcome(project)
    set_parts(project, PARTS)
    planned = project.planned(*TARGETS, config=CHOICES)
    assert planned["evaluate"] == len(RUNS) * len(PARTS), "other datasets keep their rows"
    assert not {"prepare", "finetune"} & planned.keys()

    # when: a run is killed after its second part, in the third
    run = project.start(*SNAKEMAKE, *ROWS_OF_PARTS, "--cores", "1", *CONFIG)
    folder = project.folder / f"{EVALUATED}/red/ft/all/0"
    logs = project.folder / "logs/tiny/paper/evaluate/tiny_cnn/red/ft/all/0"
    assert wait_until(lambda: len(list(logs.glob("green-*.log"))) == 3, 300, every=0.01), (
        project.printed()
    )
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert wait_until(lambda: not project.processes(), 20)
    assert len(list(folder.glob("green-*.provenance.json"))) == 2
    project.unlock()
    # then: the next one makes the other two
    assert project.planned(*ROWS_OF_PARTS, config=CHOICES) == {"evaluate": 2}
    project.snakemake(*TARGETS, "--cores", "2", config=CHOICES)
    in_parts = outcome(project)
    assert in_parts.results == whole.results
    for rows, rows_of_whole in zip(in_parts.rows, whole.rows, strict=True):
        pd.testing.assert_frame_equal(rows, rows_of_whole)
    assert "Nothing to be done" in project.snakemake(*TARGETS, "--cores", "1", config=CHOICES)

    # and: what looks at results knows the parts
    project.rib("verify", config=CHOICES)
    evaluations = len(RUNS) * (1 + len(PARTS))
    assert f" {evaluations} evaluation)" in project.rib("plan", config=CHOICES)
    project.git("init", "--quiet")
    project.rib("track", config=CHOICES)
    tracked = yaml.safe_load((project.folder / f"{EVALUATED}.dvc").read_text())
    files = [path for path in (project.folder / EVALUATED).rglob("*") if path.is_file()]
    assert tracked["outs"][0]["nfiles"] == len(files)
