"""What stands for the paper's figures and tables.

The map names what exists, and a target collects it.
"""

import csv
import re
from pathlib import Path

import pytest

from tiny.projects.project import ROOT
from tiny.tables.analyses import figures

pytestmark = pytest.mark.thorough

MAP = list(csv.DictReader((ROOT / "workflow/catalog/paper_map.csv").read_text().splitlines()))


@pytest.mark.parametrize("row", MAP, ids=lambda row: row["of_paper"])
def test_the_map_names_figures_and_tables_that_exist(row):
    assert row["figure"] in figures()
    made = {"ri", "mri", "ood", "accuracy", "curves", "leak_free", "in_distribution"}
    for file in (ROOT / "workflow/lib/rib/analyses").rglob("*.py"):
        made.update(re.findall(r"\b(\w+)\.csv\b", file.read_text()))
    assert row["tables"].split() and set(row["tables"].split()) <= made


def test_the_target_collects_what_the_run_has_and_says_what_it_stands_for(finished_copy):
    finished_copy.snakemake("--cores", "1", "paper")
    folder = finished_copy.folder / "reports/tiny/paper"
    text = (folder / "README.md").read_text()
    links = dict(re.findall(r"\[([^]]+)\]\(([^)]+)\)", text))
    assert {"ri_matrix.png", "ri_matrix.pdf", "ri.csv", "mri.csv", "before_after.csv"} <= set(links)
    for name, link in links.items():
        assert Path(link).name == name and (folder / link).is_file()
    assert "stand-in" in text and all(row["of_paper"] in text for row in MAP)
    assert finished_copy.planned("paper") == {}
