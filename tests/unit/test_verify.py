"""Results against their records, in a chain of three jobs."""

import shutil
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.records import provenance
from rib.records.verify import (
    CHANGED,
    MISSING,
    STALE,
    UNRECORDED,
    Finding,
    examine,
    related,
    report_lines,
    verify,
)
from tiny.records import edit, make, output, record

CHAIN = ("a", "b", "c")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(CHAIN):
        make(name, f"made {name}", *CHAIN[number - 1 : number] if number else ())
    return tmp_path


def found(*names: str) -> list[tuple[str, str]]:
    return [
        (finding.kind, finding.file)
        for finding in examine([record(name) for name in names or "c"]).findings
    ]


def test_all_that_a_result_was_made_from_is_hashed():
    seen = examine([record("c")])
    assert (
        list(seen.records) == [record(name) for name in CHAIN]
        and seen.findings == seen.absent == []
    )
    assert seen.hashes == {output(name): sha256(Path(output(name))) for name in CHAIN}


def test_an_edited_output_is_named_once_and_not_again_as_an_input():
    Path(output("a")).write_text("edited")
    assert found() == [(CHANGED, output("a"))]


def test_a_lost_output_is_named():
    Path(output("b")).unlink()
    assert found() == [(MISSING, output("b"))]


def test_what_was_made_from_other_inputs_is_stale():
    make("a", "made again")
    seen = examine([record("c")])
    assert seen.findings == [
        Finding(STALE, output("b"), record("b"), f"{output('a')} differs from the record")
    ]


def test_an_input_that_no_job_makes_is_compared_and_missed():
    Path("captions.rst").write_text("text")
    made = provenance.read(Path(record("c")))
    edit("c", inputs={**made["inputs"], "captions.rst": sha256(Path("captions.rst"))})
    assert found() == []
    Path("captions.rst").write_text("other")
    assert found() == [(STALE, output("c"))]
    Path("captions.rst").unlink()
    assert found() == [(MISSING, "captions.rst")]


@pytest.mark.parametrize(
    ("damage", "why"), [(None, "no record"), ("{", "damaged"), ("[]", "damaged")]
)
@pytest.mark.parametrize(("name", "asked"), [("b", "cb"), ("b", "c"), ("c", "c")])
def test_an_output_whose_record_is_lost_or_damaged_is_named(name, asked, damage, why):
    """Where nothing asked for its job and no record tells of it, as an input of another."""
    Path(record(name)).unlink() if damage is None else Path(record(name)).write_text(damage)
    (finding,) = examine(map(record, asked)).findings
    job = record(name if name in asked or damage else "c")
    differs = (CHANGED, record(name)) if damage else (UNRECORDED, output(name))
    assert (finding.kind, finding.file, finding.job) == (*differs, job) and why in finding.why


def test_a_record_of_another_job_is_named():
    shutil.copy(record("a"), record("b"))
    assert (CHANGED, record("b")) in found("b")


def test_gathered_records_stand_in_for_lost_ones():
    provenance.gather([Path("results")])
    Path(record("b")).unlink()
    assert found() == [(UNRECORDED, output("b"))]
    Path(output("b")).write_text("edited")
    assert sorted(found()) == [(CHANGED, output("b")), (UNRECORDED, output("b"))]


def test_what_was_not_pulled_is_counted_and_no_difference():
    provenance.gather([Path("results")])
    shutil.rmtree("results/a")
    seen = examine([record("c")])
    assert (
        seen.absent == [record("a")]
        and seen.findings == []
        and set(seen.records) == {record("b"), record("c")}
    )
    shutil.rmtree("results/b")
    Path("results/b").mkdir()
    assert record("b") in examine([record("c")]).absent


def test_jobs_that_share_a_folder_are_told_apart():
    """As the rows of two evaluation groups."""
    for group in ("one", "two"):
        Path(f"results/c/{group}.parquet").write_text(group)
    made = provenance.read(Path(record("c")))
    made["outputs"] = {"results/c/one.parquet": sha256(Path("results/c/one.parquet"))}
    provenance.write(Path("results/c/one.provenance.json"), made)
    findings = examine(["results/c/one.provenance.json", "results/c/two.provenance.json"]).findings
    assert [(finding.kind, finding.file) for finding in findings] == [
        (UNRECORDED, "results/c/two.parquet")
    ]


def test_what_differs_is_printed_with_a_remedy_logged_and_refused(capsys, caplog):
    caplog.set_level("DEBUG")
    verify([record("c")], "logs/verify.log")
    assert "3 jobs, 3 files, 18.0B" in capsys.readouterr().out
    Path(output("a")).write_text("edited")
    Path(output("b")).unlink()
    with pytest.raises(UserError, match="^2 .* in 2 jobs; logs/verify.log"):
        verify([record("c")], "logs/verify.log")
    printed = capsys.readouterr().out
    assert f": 1\n  {output('a')}\n" in printed and f"`snakemake {output('a')}`" in printed
    assert f": 1\n  {output('b')}\n" in printed and f"`snakemake {output('b')}`" in printed
    assert f"changed: {output('a')} (" in caplog.text and f"job {record('a')})" in caplog.text


def test_jobs_that_have_nothing_here_are_counted(capsys):
    provenance.gather([Path("results")])
    shutil.rmtree("results/a")
    verify([record("c")], "logs/verify.log")
    assert "2 jobs, 2 files, 12.0B\n1 jobs have no files here" in capsys.readouterr().out
    make("a", "made a")
    verify([record("c")], "logs/verify.log")
    assert "no files here" not in capsys.readouterr().out


def test_records_that_a_result_depends_on_are_found_through_its_inputs_folders():
    """Nothing was gathered; makers are found beside the inputs."""
    known, makers = related([record("c")])
    assert list(known) == [record(name) for name in CHAIN]
    assert {path: len(lines) for path, lines in known.items()} == {
        record(name): 1 for name in CHAIN
    }
    assert makers == {output(name): record(name) for name in CHAIN}
    assert list(related([record("b"), record("b")])[0]) == [record("a"), record("b")]
    assert related([]) == ({}, {}) and related(["results/x/provenance.json"])[0] == {
        "results/x/provenance.json": []
    }


def test_what_stands_before_a_record_that_was_asked_for_twice_is_found_too():
    records_by_path, _ = related([record("c"), record("a"), record("a")])
    assert set(records_by_path) == {record(name) for name in CHAIN}


def test_inputs_outside_of_what_jobs_make_are_not_looked_beside():
    Path("elsewhere").mkdir()
    Path("elsewhere/out.txt").write_text("text")
    shutil.copy(record("a"), "elsewhere/provenance.json")
    edit("c", inputs={"elsewhere/out.txt": sha256(Path("elsewhere/out.txt"))})
    assert list(related([record("c")])[0]) == [record("c")]
    assert found() == []


@pytest.mark.parametrize("made_in", ["data/raw", "results", "reports"])
def test_a_file_where_jobs_write_needs_a_record_and_one_elsewhere_none(made_in):
    for place in (made_in, "mine"):
        Path(f"{place}/x").mkdir(parents=True)
        Path(f"{place}/x/input.txt").write_text("text")
        edit("c", inputs={f"{place}/x/input.txt": sha256(Path(f"{place}/x/input.txt"))})
        assert found() == ([] if place == "mine" else [(UNRECORDED, f"{place}/x/input.txt")])
    (finding,) = examine_with(f"{made_in}/x/input.txt")
    assert finding == Finding(UNRECORDED, f"{made_in}/x/input.txt", record("c"), "no record")


def examine_with(*inputs: str) -> list[Finding]:
    edit("c", inputs={file: sha256(Path(file)) for file in inputs})
    return examine([record("c")]).findings


def test_an_input_that_is_a_record_needs_none_itself_and_is_compared():
    edit("c", inputs={record("a"): sha256(Path(record("a")))})
    assert found() == []
    edit("a", seconds=2.0)
    assert found() == [(STALE, output("c"))]


def test_an_input_without_a_record_that_was_changed_is_named_once():
    Path("data/raw/x").mkdir(parents=True)
    Path("data/raw/x/file").write_text("text")
    for name in ("b", "c"):
        edit(name, inputs={"data/raw/x/file": "0" * 64})
    assert found("b", "c") == [(UNRECORDED, "data/raw/x/file")]
    Path("data/raw/x/file").unlink()
    assert found("b", "c") == [], "not pulled, as its job"


def test_an_input_that_is_lost_is_named_once_and_says_whose_it_is():
    for name in ("b", "c"):
        edit(name, inputs={"captions.rst": "0" * 64})
    (finding,) = examine([record("b"), record("c")]).findings
    assert finding == Finding(MISSING, "captions.rst", record("b"), f"an input of {output('b')}")
    Path("captions.rst").write_text("another text")
    assert found("b", "c") == [(STALE, output("b")), (STALE, output("c"))]


def test_every_other_input_makes_a_finding_and_a_job_without_outputs_is_named_by_its_record():
    for name in ("one", "other", "same"):
        Path(f"{name}.txt").write_text(name)
    listed = {"one.txt": "0" * 64, "same.txt": sha256(Path("same.txt")), "other.txt": "1" * 64}
    edit("c", inputs=listed, outputs={})
    assert examine([record("c")]).findings == [
        Finding(STALE, record("c"), record("c"), f"{file} differs from the record")
        for file in ("one.txt", "other.txt")
    ]


def test_a_record_with_an_output_elsewhere_is_another_jobs():
    Path("results/c/more.txt").write_text("more")
    both = {
        output("c"): sha256(Path(output("c"))),
        "results/c/more.txt": sha256(Path("results/c/more.txt")),
    }
    edit("c", outputs=both)
    assert found() == []
    edit("c", outputs={**both, output("b"): sha256(Path(output("b")))})
    assert found() == [(CHANGED, record("c"))]


def test_a_job_of_which_one_output_is_here_was_run():
    edit("c", outputs={output("c"): sha256(Path(output("c"))), "results/c/more.txt": "0" * 64})
    provenance.gather([Path("results/a")])
    lines = provenance.load()
    lines[record("c")] = [provenance.read(Path(record("c")))]
    provenance.save(lines)
    Path(record("c")).unlink()
    assert set(found()) == {(UNRECORDED, output("c")), (MISSING, "results/c/more.txt")}
    Path(output("c")).unlink()
    seen = examine([record("c")])
    assert seen.absent == [record("c")] and seen.findings == [] and record("c") not in seen.records


def test_what_a_lost_record_leaves_behind_is_told_from_other_jobs_files():
    """Beside it: an evaluation group of another job, DVC's and temporary files, a folder."""
    Path(record("c")).unlink()
    for name in ("two.parquet", "two.provenance.json", "c.dvc", "half.tmp"):
        Path(f"results/c/{name}").write_text("")
    Path("results/c/folder").mkdir()
    assert [(finding.kind, finding.file) for finding in examine([record("c")]).findings] == [
        (UNRECORDED, output("c"))
    ]
    Path(output("c")).unlink()
    assert examine([record("c")]).absent == [record("c")]
    Path("results/c/two.provenance.json").unlink()
    (finding,) = examine(["results/c/two.provenance.json"]).findings
    assert (finding.kind, finding.file) == (UNRECORDED, "results/c/two.parquet")


def test_of_several_gathered_records_the_best_one_counts_and_what_differs_from_it_is_found():
    Path("results/c/more.txt").write_text("more")
    right = {
        output("c"): sha256(Path(output("c"))),
        "results/c/more.txt": sha256(Path("results/c/more.txt")),
    }
    made = provenance.read(Path(record("c")))
    half = {**made, "outputs": {**right, "results/c/more.txt": "0" * 64}}
    none = {**made, "outputs": dict.fromkeys(right, "1" * 64)}
    Path(record("c")).unlink()
    for lines in ([none, half], [half, none]):
        provenance.save({record("c"): lines})
        assert set(found()) == {(UNRECORDED, output("c")), (CHANGED, "results/c/more.txt")}
    provenance.save({record("c"): [none, half, {**made, "outputs": right}]})
    seen = examine([record("c")])
    assert seen.records[record("c")]["outputs"] == right and len(seen.findings) == 1


def finding(kind: str, number: int, why: str = "") -> Finding:
    return Finding(kind, f"f{number:02}", f"job{number}", why)


def test_ten_files_of_a_kind_are_listed_and_the_first_three_are_in_the_advice():
    lines = report_lines([finding(CHANGED, n) for n in range(10)])
    assert lines[0].endswith(": 10") and lines[1] == "  f00" and lines[10] == "  f09"
    assert len(lines) == 12 and "`snakemake f00 f01 f02`" in lines[11]
    lines = report_lines([finding(CHANGED, n) for n in range(12)])
    assert (
        lines[0].endswith(": 12") and lines[10:12] == ["  f09", "  and 2 more"] and len(lines) == 13
    )


def test_kinds_are_listed_in_one_order_with_why_and_stale_jobs_once():
    findings = [
        *(
            finding(UNRECORDED, 1, "no record"),
            finding(STALE, 2, "x"),
            finding(STALE, 2, "y"),
            finding(STALE, 3, "x"),
        ),
        *(finding(MISSING, 4), finding(CHANGED, 5)),
    ]
    lines = report_lines(findings)
    heads = [line for line in lines if not line.startswith(" ")]
    assert [line.rpartition(":")[2] for line in heads] == [" 1", " 1", " 2 (of 3 inputs)", " 1"]
    places = [
        lines.index(line)
        for line in ("  f05", "  f04", "  f02 (y)", "  f03 (x)", "  f01 (no record)")
    ]
    assert places == sorted(places) and len(lines) == 4 * 2 + 5
    assert "`snakemake --forcerun f02 f03`" in lines[places[3] + 1]
    assert len(report_lines([])) == 1


def test_a_damaged_record_is_named_by_itself():
    group = "results/c/two.provenance.json"
    Path(group).write_text("{")
    for file in ("results/c/two.parquet", group):
        Path(file).touch()
        (finding,) = examine([group]).findings
        assert (finding.kind, finding.file, finding.job) == (CHANGED, group, group)
        Path(file).unlink()
