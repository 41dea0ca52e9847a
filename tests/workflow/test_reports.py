"""Tables, figures and page are of the present config; no other target or name changes them."""

import hashlib
import shutil

import pandas as pd
import pytest

from tiny.projects.project import Project

pytestmark = pytest.mark.thorough

NARROW = ("targets=[red]", "methods=[ft]")
HELD_OUT = (*NARROW, "protocol=held_out")
HERE = "reports/tiny"


def page_files(project, folder=HERE) -> dict[str, str]:
    """Hashes of what a plain run writes, by path.

    What other targets have in folders of their own is left out.
    """
    root = project.folder / folder
    files = [*root.glob("*.*"), *root.glob("tables/*"), *root.glob("figures/*")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "report.html"  # Snakemake's, which is made by each call that asks for it
    }


@pytest.fixture(scope="module")
def looked_at(finished, tmp_path_factory):
    """A finished project in which other targets are made one after the other, of narrower grids."""
    folder = tmp_path_factory.mktemp("reports") / "copy"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    return Project(folder)


@pytest.mark.parametrize(
    ("target", "choices"),
    [("distances", NARROW), ("tables", HELD_OUT), ("tables", (*NARROW, "name=narrow"))],
)
def test_another_target_or_name_changes_nothing_of_the_page(looked_at, target, choices):
    # given the tables, figures and page of the default config
    before = page_files(looked_at)
    # when something else is made, of a part of the grid
    looked_at.snakemake("--cores", "2", target, config=choices)
    # then nothing of it has changed
    assert page_files(looked_at) == before
    assert looked_at.planned() == {}, "the default grid is still finished"


def test_every_file_of_the_wide_and_of_the_narrow_grids_is_what_its_record_says(looked_at):
    """After the targets above were made of narrower grids."""
    for choices in [(), (*NARROW, "name=narrow"), HELD_OUT]:
        assert "all files match their records" in looked_at.rib("verify", config=choices)


def test_a_narrower_config_of_the_same_name_writes_in_its_place(finished_copy):
    before = page_files(finished_copy)
    finished_copy.snakemake("--cores", "2", config=NARROW)
    ri = pd.read_csv(finished_copy.folder / HERE / "tables/ri.csv")
    assert set(ri["target"]) == {"red"} and set(ri["method"]) == {"ft"}
    assert finished_copy.planned(config=NARROW) == {}

    # the wide grid is reported again, and nothing is evaluated again
    planned = set(finished_copy.planned())
    assert "compute_metrics" in planned and "evaluate" not in planned and "finetune" not in planned
    finished_copy.snakemake("--cores", "1")
    again = page_files(finished_copy)
    records = {name for name in before if name.endswith("provenance.json")}
    measured = {
        "tables/cost.csv",
        "index.html",
        *(f"figures/cost.{e}" for e in ("png", "pdf", "csv")),
    }
    assert {name: again[name] for name in again.keys() - records - measured} == {
        name: before[name] for name in before.keys() - records - measured
    }
