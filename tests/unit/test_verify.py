"""Results against their records, in a chain of three jobs."""

import json
import shutil
from pathlib import Path

import pytest

from rib import provenance
from rib.io import UserError, sha256
from rib.verify import CHANGED, MISSING, STALE, UNRECORDED, Finding, examine, verify

CHAIN = ("a", "b", "c")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(CHAIN):
        make(name, f"made {name}", *CHAIN[number - 1 : number] if number else ())
    return tmp_path


def output(name: str) -> str:
    return f"results/{name}/out.txt"


def record(name: str) -> str:
    return f"results/{name}/provenance.json"


def make(name: str, text: str, *inputs: str) -> None:
    """Run a job: its output, made from those of others, and its record."""
    Path(f"results/{name}").mkdir(parents=True, exist_ok=True)
    Path(output(name)).write_text(text)
    made = {
        **{"rule": "r", "log": f"logs/{name}.log", "cfg": {}, "seconds": 1.0, "ended": "2026-01-01T00:00:00+00:00"},
        "inputs": {output(other): sha256(Path(output(other))) for other in inputs},
        "outputs": {output(name): sha256(Path(output(name)))},
    }
    Path(record(name)).write_text(json.dumps(made))


def found(*names: str) -> list[tuple[str, str]]:
    return [(finding.kind, finding.file) for finding in examine([record(name) for name in names or "c"]).findings]


def test_all_that_a_result_was_made_from_is_hashed():
    seen = examine([record("c")])
    assert list(seen.records) == [record(name) for name in CHAIN] and seen.findings == seen.absent == []
    assert seen.hashes == {output(name): sha256(Path(output(name))) for name in CHAIN}


def test_an_edited_output_is_named_once_and_not_again_as_an_input():
    Path(output("a")).write_text("edited")
    assert found() == [(CHANGED, output("a"))]


def test_a_lost_output_is_named():
    Path(output("b")).unlink()
    assert found() == [(MISSING, output("b"))]


def test_what_was_made_from_other_inputs_is_stale():
    make("a", "made anew")
    seen = examine([record("c")])
    assert seen.findings == [Finding(STALE, output("b"), record("b"), f"{output('a')} is not the recorded one")]


def test_an_input_that_no_job_makes_is_compared_and_missed():
    Path("captions.rst").write_text("text")
    made = json.loads(Path(record("c")).read_text())
    made["inputs"]["captions.rst"] = sha256(Path("captions.rst"))
    Path(record("c")).write_text(json.dumps(made))
    assert found() == []
    Path("captions.rst").write_text("other")
    assert found() == [(STALE, output("c"))]
    Path("captions.rst").unlink()
    assert found() == [(MISSING, "captions.rst")]


@pytest.mark.parametrize("name", ["b", "c"])
def test_outputs_without_a_record_are_named(name):
    Path(record(name)).unlink()
    assert found("c", "b") == [(UNRECORDED, output(name))]


def test_an_input_without_a_record_is_named_though_nothing_asked_for_its_job():
    Path(record("b")).unlink()
    assert found() == [(UNRECORDED, output("b"))]


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_a_damaged_record_is_named(damage):
    Path(record("b")).write_text(damage)
    assert (UNRECORDED, output("b")) in found("c", "b")


def test_a_record_of_another_job_is_named():
    shutil.copy(record("a"), record("b"))
    assert (UNRECORDED, output("a")) in found("b")


def test_gathered_records_stand_in_for_lost_ones():
    provenance.gather([Path("results")])
    Path(record("b")).unlink()
    assert found() == [(UNRECORDED, output("b"))]
    Path(output("b")).write_text("edited")
    assert sorted(found()) == [(CHANGED, output("b")), (UNRECORDED, output("b"))]


def test_of_two_gathered_records_the_one_that_fits_counts():
    made = json.loads(Path(record("b")).read_text())
    other = {**made, "outputs": {output("b"): "0" * 64}}
    provenance.save({record("b"): [other, made]})
    Path(record("b")).unlink()
    assert found() == [(UNRECORDED, output("b"))]


def test_what_was_not_pulled_is_counted_and_no_difference():
    provenance.gather([Path("results")])
    shutil.rmtree("results/a")
    seen = examine([record("c")])
    assert seen.absent == [record("a")] and seen.findings == [] and set(seen.records) == {record("b"), record("c")}
    shutil.rmtree("results/b")
    Path("results/b").mkdir()
    assert record("b") in examine([record("c")]).absent


def test_jobs_that_share_a_folder_are_told_apart():
    """As the rows of two suites."""
    for suite in ("one", "two"):
        Path(f"results/c/{suite}.parquet").write_text(suite)
    made = json.loads(Path(record("c")).read_text())
    made["outputs"] = {"results/c/one.parquet": sha256(Path("results/c/one.parquet"))}
    Path("results/c/one.provenance.json").write_text(json.dumps(made))
    records = ["results/c/one.provenance.json", "results/c/two.provenance.json"]
    findings = examine(records).findings
    assert [(finding.kind, finding.file) for finding in findings] == [(UNRECORDED, "results/c/two.parquet")]


def test_lines_say_how_many_which_and_what_to_do(capsys):
    verify([record("c")], "logs/verify.log")
    said = capsys.readouterr().out
    assert "verified 3 jobs, 3 files, 18.0B" in said and "all agree with their records" in said
    Path(output("a")).write_text("edited")
    Path(output("b")).unlink()
    with pytest.raises(UserError, match=r"^2 differences from the records, of 2 jobs; logs/verify\.log lists"):
        verify([record("c")], "logs/verify.log")
    said = capsys.readouterr().out
    assert f"edited or damaged after it was made: 1\n  {output('a')}\n" in said
    assert f"lost: 1\n  {output('b')}\n  Get it back with `dvc pull {output('b')}`" in said
    assert f"`dvc pull --force {output('a')}`" in said and "all agree" not in said
