"""No target changes what another published.

All that is published in a folder is of one grid.
"""

import hashlib
import shutil

import pandas as pd
import pytest

from tiny.project import Project

pytestmark = pytest.mark.thorough

NARROW = ("targets=[red]", "datasets=[red,green,blue]")
ONE_TARGET = ("targets=[red]",)
HELD_OUT = (*NARROW, "protocol=held_out", "methods=[ft]")
HERE = "reports/tiny"


def published(project, folder=HERE) -> dict[str, str]:
    """Hashes of what a plain run publishes, by path.

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
    folder = tmp_path_factory.mktemp("published") / "copy"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    return Project(folder)


@pytest.mark.parametrize(
    ("target", "choices"),
    [
        ("export", NARROW),
        ("distances", NARROW),
        ("representations", NARROW),
        ("learning_rates", NARROW),
        ("tables", HELD_OUT),
        pytest.param("slices", NARROW, marks=pytest.mark.slow),
        pytest.param("preview", ONE_TARGET, marks=pytest.mark.slow),
        pytest.param("paper", NARROW, marks=pytest.mark.slow),
        pytest.param("stir", NARROW, marks=pytest.mark.slow),
        pytest.param("epochs", NARROW, marks=pytest.mark.slow),
    ],
)
def test_a_target_of_a_narrower_grid_changes_nothing_that_is_published(looked_at, target, choices):
    # given what the default grid published
    before = published(looked_at)
    # when another target is made of a part of the grid
    looked_at.snakemake("--cores", "2", target, config=choices)
    # then nothing of it has changed
    assert published(looked_at) == before
    assert looked_at.planned() == {}, "the default grid is still finished"


def test_every_file_of_the_wide_and_of_the_narrow_grids_is_what_its_record_says(looked_at):
    """After the targets above were made of narrower grids."""
    for choices in [(), NARROW, HELD_OUT]:
        assert "all files match their records" in looked_at.rib("verify", config=choices)


def test_a_narrower_grid_is_published_as_a_whole(finished_copy):
    before = published(finished_copy)
    finished_copy.snakemake("--cores", "2", "figures", config=("targets=[red]", "methods=[ft]"))
    narrow = published(finished_copy)
    ri = pd.read_csv(finished_copy.folder / HERE / "tables/ri.csv")
    assert set(ri["target"]) == {"red"} and set(ri["method"]) == {"ft"}
    of_each_run = {"index.html", "tables/ri.csv", "tables/mri.csv", "figures/ri_matrix.csv"}
    assert not [name for name in of_each_run if narrow[name] == before[name]]

    # a grid without fine-tuned runs has no figures, and none of another grid stay
    finished_copy.snakemake("--cores", "2", "tables", config=("methods=[pretrained]",))
    assert not [name for name in published(finished_copy) if name.startswith("figures/")]

    # the wide grid is published again from what was made of it before
    assert set(finished_copy.planned()) == {"publish_grid"}
    finished_copy.snakemake("--cores", "1")
    again = published(finished_copy)
    records = {"provenance.json"}
    assert {name: again[name] for name in again.keys() - records} == {
        name: before[name] for name in before.keys() - records
    }
