"""What an earlier config of the same name has left is removed; the user's own files stay."""

from pathlib import Path

import pytest

from rib.records import provenance
from rib.report.stale import remove_other_files
from tiny.projects.records import FACTS

REPORT = Path("reports/f")


@pytest.fixture(autouse=True)
def in_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(job: str, *names: str) -> None:
    """Leave files and their record as a job does."""
    for name in names:
        path = REPORT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    outputs = {str(REPORT / name): "0" * 64 for name in names}
    record = {**FACTS, "log": "a.log", "inputs": {}, "outputs": outputs, "sizes": {}}
    folder = Path(names[0]).parent
    provenance.write(REPORT / folder / f"{job}.provenance.json", record)


def names_left() -> set[str]:
    return {str(path.relative_to(REPORT)) for path in REPORT.rglob("*") if path.is_file()}


def test_files_of_another_config_go_with_their_records_and_all_else_stays():
    make("cost", "tables/cost.csv")
    make("selection", "tables/selection.csv")
    make("figures", "figures/cost.png", "figures/models.png")
    make("stir", "stir/tables/stir.csv")
    (REPORT / "tables/notes.txt").write_text("mine")
    (REPORT / "tables/mine.csv").write_text("mine")
    (REPORT / "tables.dvc").write_text("outs: []")
    remove_other_files(REPORT, [REPORT / "tables/cost.csv", REPORT / "figures/cost.png"])
    assert names_left() == {
        "tables/cost.csv",
        "tables/cost.provenance.json",
        "figures/cost.png",
        "figures/figures.provenance.json",
        "stir/tables/stir.csv",
        "stir/tables/stir.provenance.json",
        "tables/notes.txt",
        "tables/mine.csv",
        "tables.dvc",
    }
