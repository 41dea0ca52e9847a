"""A finished project of before: `verify`, `accept` and `compare` still understand what it recorded.

tests/fixtures/make_finished_project.py made it. Where a test here fails, records, bundles or
settings have another shape than before. If that is meant, say so in CHANGELOG.md, see whether a
version has to be raised (rib.records.provenance.FORMAT_VERSION, rib.reporting.bundle.VERSION), and
make the fixture again (`make fixture`).
"""

import contextlib
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from rib.records import provenance
from rib.records.accept import accept
from rib.records.verify import CHANGED, examine
from rib.reporting.compare import compare
from rib.reporting.settings import RankingStatistics
from tiny.project import ROOT, Project, copy_project

FIXTURE = ROOT / "tests/fixtures/finished_project"
BUNDLE = ROOT / "tests/fixtures/finished_project.rib.zip"
TABULATION = "workflow/lib/rib/analysis/tables.py"


@pytest.fixture
def finished_before(tmp_path, monkeypatch):
    """A copy of the fixture, in which the test runs; gives the paths of its records."""
    shutil.copytree(FIXTURE, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return [str(path) for path in provenance.below(map(Path, provenance.MADE))]


@pytest.fixture
def project_finished_before(tmp_path):
    """The project of the fixture, with the code of today."""
    folder = copy_project(tmp_path / "project")
    shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
    return Project(folder)


def record_of(rule: str, records: list[str]) -> str:
    """The path of the only record of a job of a rule."""
    (path,) = [path for path in records if provenance.read(Path(path))["rule"] == rule]
    return path


def outputs_of(records: list[str]) -> list[Path]:
    """All outputs of jobs."""
    outputs = []
    for path in records:
        outputs += map(Path, provenance.read(Path(path))["outputs"])
    return outputs


def test_all_files_match_their_records(finished_before):
    examination = examine(finished_before)
    assert examination.findings == []
    rules = {record["rule"] for record in examination.records.values()}
    assert rules == {"prepare", "evaluate_run", "compute_metrics"}
    assert examination.absent  # the jobs of which only the gathered record was kept


def test_a_byte_more_is_noticed_in_each_file(finished_before):
    for file in outputs_of(finished_before):
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        findings = examine(finished_before).findings
        assert [(finding.kind, finding.file) for finding in findings] == [(CHANGED, str(file))]
        file.write_bytes(before)


def test_other_code_with_the_same_outputs_is_accepted(finished_before, tmp_path, capsys):
    tables = record_of("compute_metrics", finished_before)
    change = {"code": "another digest", "kind": "compute_metrics", "model": ""}

    def run_with_other_code(records):
        """Make the same files elsewhere, with a record of the other code."""
        folder = tmp_path / "elsewhere"
        for path in records:
            record = provenance.read(Path(path))
            record["cfg"]["code"] = change["code"]
            for output in record["outputs"]:
                (folder / output).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(output, folder / output)
            provenance.write(folder / path, record)
        return contextlib.nullcontext(folder)

    accept({tables: change}, 1, run_with_other_code, lambda path, record: None)
    printed = capsys.readouterr().out
    assert "the outputs of 1 sampled jobs are identical: 1 jobs accepted" in printed
    assert provenance.read(Path(tables))["cfg"]["code"] == change["code"]
    assert examine(finished_before).findings == []


def test_its_bundle_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare(
        bundles=[str(BUNDLE)],
        statistics=RankingStatistics(replicates=100, confidence=0.95, seed=0),
        log_file="logs/compare.log",
        folder=Path("reports/compare"),
    )
    ranking = pd.read_csv("reports/compare/ranking.csv")
    claims = pd.read_csv("reports/compare/claims.csv")
    assert list(ranking["method"]) == ["ft"]
    assert "mri.csv" in set(claims["table"]) and (claims["largest difference"] < 1e-5).all()


def test_snakemake_verifies_it(project_finished_before):
    printed = project_finished_before.snakemake("verify", "--cores", "1")
    assert "all files match their records" in printed
    (number_of_jobs,) = re.findall(r"verified (\d+) jobs", printed)
    assert int(number_of_jobs) == 6  # two datasets, three states and the tables


@pytest.mark.thorough
def test_snakemake_accepts_its_tables_after_a_refactoring(project_finished_before):
    """So the settings of the job that computes tables are those that it has today."""
    code = project_finished_before.folder / TABULATION
    code.write_text(code.read_text() + "\nANOTHER_CONSTANT = 1\n")
    printed = project_finished_before.snakemake("accept", "--cores", "1", RIB_ACCEPT_SAMPLE="1")
    assert "re-running 1 in another folder" in printed
    assert "the outputs of 1 sampled jobs are identical: 1 jobs accepted" in printed
