"""A published folder has the files of one grid.

Copies are made, those of other grids go, the user's own stay.
"""

from pathlib import Path

import pytest

from rib.records import provenance
from rib.report.publication import publish
from rib.report.settings import PublicationSettings
from tiny.records import FACTS

GRIDS = Path("results/f/paper/metrics")
FOLDER = Path("reports/f")


@pytest.fixture(autouse=True)
def in_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def published(grid: str, *names: str) -> set[str]:
    """Publish files of a grid as its job does, and return what is in the folder then."""
    files = [write(GRIDS / grid / name, f"{name} of {grid}") for name in names]
    outputs = {name: write(Path("work") / name, "") for name in names}
    publish(
        files=files,
        copies=outputs,
        settings=PublicationSettings(source=GRIDS / grid, folder=FOLDER, grids=GRIDS, code=""),
    )
    for name, staged in outputs.items():
        write(FOLDER / name, staged.read_text())
    return {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}


def test_files_are_copied_under_their_paths():
    names = {"tables/ri.csv", "figures/ri.png", "index.html"}
    assert published("wide", *names) == names
    assert (FOLDER / "figures/ri.png").read_text() == "figures/ri.png of wide"


def test_what_only_another_grid_has_is_removed():
    published("wide", "tables/ri.csv", "tables/models.csv", "figures/models.png", "index.html")
    assert published("narrow", "tables/ri.csv", "index.html") == {"tables/ri.csv", "index.html"}
    assert (FOLDER / "tables/ri.csv").read_text() == "tables/ri.csv of narrow"
    assert (GRIDS / "wide/tables/models.csv").is_file(), "the grid itself keeps it"


def test_files_of_users_and_of_dvc_stay():
    published("wide", "tables/ri.csv")
    write(FOLDER / "tables/notes.txt", "mine")
    write(FOLDER / "tables/ri.csv.dvc", "outs: []")
    write(FOLDER / "talk/tables.pdf", "mine")
    kept = published("narrow", "tables/mri.csv")
    assert kept == {"tables/mri.csv", "tables/notes.txt", "tables/ri.csv.dvc", "talk/tables.pdf"}


def test_results_and_records_that_an_earlier_version_wrote_there_are_removed():
    for name in ("tables/old.csv", "figures/old.png", "index.html"):
        write(FOLDER / name, "")
    for name, output in (
        ("tables/provenance.json", "tables/old.csv"),
        ("figures/old.provenance.json", "figures/old.png"),
        ("index.provenance.json", "index.html"),
    ):
        files = {"inputs": {}, "outputs": {str(FOLDER / output): "0" * 64}, "sizes": {}}
        provenance.write(FOLDER / name, {**FACTS, "log": "logs/old.log", **files})
    assert published("wide", "tables/ri.csv", "index.html") == {"tables/ri.csv", "index.html"}
