"""What `same_bytes` says of two project folders."""

import pytest

from same_bytes import differences

FILES = {
    "results/tiny/rows.parquet": b"rows",
    "results/tiny/provenance.json": b"10:00",
    "reports/tiny/tables/mri.csv": b"1.5",
    "reports/tiny/tables/cost.csv": b"3 s",
}


@pytest.fixture
def project(tmp_path):
    """Makes a project folder of files, by path."""

    def make(name, files):
        for path, data in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return tmp_path / name

    return make


def test_times_and_costs_may_differ(project):
    later = FILES | {
        "results/tiny/provenance.json": b"11:00",
        "reports/tiny/tables/cost.csv": b"4 s",
    }
    assert differences(project("before", FILES), project("after", later)) == []


def test_a_changed_a_missing_and_a_new_file_are_named(project):
    later = {
        "results/tiny/rows.parquet": b"Rows",
        "results/tiny/provenance.json": b"10:00",
        "reports/tiny/tables/cost.csv": b"3 s",
        "reports/tiny/tables/ri.csv": b"2",
    }
    assert differences(project("before", FILES), project("after", later)) == [
        "only before: reports/tiny/tables/mri.csv",
        "only after: reports/tiny/tables/ri.csv",
        "differs: results/tiny/rows.parquet",
    ]
