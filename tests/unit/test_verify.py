"""Results against their records, in a chain of three jobs.

b reads the output of a, and c that of b.
"""

import json
import re
import shlex
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
    Examination,
    Finding,
    examine,
    report_lines,
    verify,
)
from tiny.projects.records import make, output, record

LOG = "logs/verify.log"


@pytest.fixture(autouse=True)
def chain_of_jobs(tmp_path, monkeypatch):
    """The three jobs have run in the current folder."""
    monkeypatch.chdir(tmp_path)
    make("a", "made a")
    make("b", "made b", "a")
    make("c", "made c", "b")


def write(file: str, text: str) -> None:
    """Write a file, and its folder where there is none."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)


def hashes_of(*files: str) -> dict[str, str]:
    """Hashes of files as they are now, as a record states them."""
    return {file: sha256(Path(file)) for file in files}


def edit(name: str, **facts) -> None:
    """Change facts of a job's record."""
    provenance.write(Path(record(name)), {**record_of(name), **facts})


def record_of(name: str) -> dict:
    """The provenance record that a job has now."""
    return provenance.read(Path(record(name)))


def examine_jobs(*names: str) -> Examination:
    """Examine jobs, and those that they depend on."""
    return examine([record(name) for name in names])


def kinds_and_files(examination: Examination) -> list[tuple[str, str]]:
    """Of each finding its kind and the affected file."""
    return [(finding.kind, finding.file) for finding in examination.findings]


def differences_of(*names: str) -> list[tuple[str, str]]:
    """Kind and file of each finding about jobs, and those that they depend on."""
    return kinds_and_files(examine_jobs(*names))


def test_all_that_a_result_was_made_from_is_hashed():
    examination = examine_jobs("c")
    assert list(examination.records) == [record("a"), record("b"), record("c")]
    assert examination.hashes == hashes_of(output("a"), output("b"), output("c"))
    assert examination.findings == []
    assert examination.absent == []


def test_an_edited_output_is_named_once_and_not_again_as_an_input():
    write(output("a"), "edited")
    assert differences_of("c") == [(CHANGED, output("a"))]


def test_a_lost_output_is_named():
    Path(output("b")).unlink()
    assert differences_of("c") == [(MISSING, output("b"))]


def test_what_was_made_from_other_inputs_is_stale():
    make("a", "made again")
    examination = examine_jobs("c")
    reason = f"{output('a')} differs from the record"
    assert examination.findings == [Finding(STALE, output("b"), record("b"), reason)]


@pytest.mark.parametrize(("examined_jobs", "named_job"), [("cb", "b"), ("c", "c")])
def test_an_output_whose_record_is_lost_is_named(examined_jobs, named_job):
    """Where nothing asked for its job, as an input of another."""
    Path(record("b")).unlink()
    (finding,) = examine_jobs(*examined_jobs).findings
    assert (finding.kind, finding.file) == (UNRECORDED, output("b"))
    assert finding.job == record(named_job)


@pytest.mark.parametrize("examined_jobs", ["cb", "c"])
def test_a_damaged_record_is_named(examined_jobs):
    write(record("b"), "{")
    (finding,) = examine_jobs(*examined_jobs).findings
    assert (finding.kind, finding.file) == (CHANGED, record("b"))
    assert finding.job == record("b")


def test_gathered_records_stand_in_for_lost_ones():
    # given
    provenance.gather([Path("results")])
    Path(record("b")).unlink()
    # when
    as_made = differences_of("c")
    write(output("b"), "edited")
    after_an_edit = differences_of("c")
    # then
    assert as_made == [(UNRECORDED, output("b"))]
    assert sorted(after_an_edit) == [(CHANGED, output("b")), (UNRECORDED, output("b"))]


def test_what_was_not_pulled_is_counted_and_no_difference():
    # given
    provenance.gather([Path("results")])
    # when
    shutil.rmtree("results/a")
    without_folder_of_a = examine_jobs("c")
    shutil.rmtree("results/b")
    Path("results/b").mkdir()
    with_empty_folder_of_b = examine_jobs("c")
    # then
    assert without_folder_of_a.absent == [record("a")]
    assert without_folder_of_a.findings == []
    assert set(without_folder_of_a.records) == {record("b"), record("c")}
    assert record("b") in with_empty_folder_of_b.absent


def test_jobs_that_share_a_folder_are_told_apart():
    """As the rows of two evaluation groups."""
    # given
    write("results/c/one.parquet", "one")
    write("results/c/two.parquet", "two")
    record_of_one = record_of("c") | {"outputs": hashes_of("results/c/one.parquet")}
    provenance.write(Path("results/c/one.provenance.json"), record_of_one)
    # when
    examination = examine(["results/c/one.provenance.json", "results/c/two.provenance.json"])
    # then
    assert kinds_and_files(examination) == [(UNRECORDED, "results/c/two.parquet")]


def test_what_differs_is_printed_with_a_remedy_logged_and_refused(capsys, caplog):
    # given
    caplog.set_level("DEBUG")
    # when
    verify([record("c")], LOG)
    printed_as_made = capsys.readouterr().out
    write(output("a"), "edited")
    Path(output("b")).unlink()
    with pytest.raises(UserError, match=f"^2 .* in 2 jobs; {LOG}"):
        verify([record("c")], LOG)
    printed_with_differences = capsys.readouterr().out
    # then
    assert "3 jobs, 3 files, 18.0B" in printed_as_made
    assert f": 1\n  {output('a')}\n" in printed_with_differences
    assert f"`snakemake {output('a')}`" in printed_with_differences
    assert f": 1\n  {output('b')}\n" in printed_with_differences
    assert f"`snakemake {output('b')}`" in printed_with_differences
    assert f"changed: {output('a')} (" in caplog.text
    assert f"job {record('a')})" in caplog.text


def test_all_jobs_in_a_folder_are_checked_too(capsys):
    # given
    make("exported", "made from nothing")
    write(output("exported"), "edited")
    # when
    verify([record("c")], LOG)
    printed_without_the_folder = capsys.readouterr().out
    with pytest.raises(UserError, match="^1 .* in 1 jobs"):
        verify([record("c"), "results/exp*"], LOG)
    printed_with_the_folder = capsys.readouterr().out
    # then
    assert "3 jobs, 3 files" in printed_without_the_folder
    assert "4 jobs, 4 files" in printed_with_the_folder
    assert f": 1\n  {output('exported')}\n" in printed_with_the_folder


def test_jobs_that_have_nothing_here_are_counted(capsys):
    # given
    provenance.gather([Path("results")])
    shutil.rmtree("results/a")
    # when
    verify([record("c")], LOG)
    printed_without_a = capsys.readouterr().out
    make("a", "made a")
    verify([record("c")], LOG)
    printed_with_a = capsys.readouterr().out
    # then
    assert "1 jobs have no files here" in printed_without_a
    assert "no files here" not in printed_with_a


def test_what_stands_before_a_record_that_was_asked_for_twice_is_found_too():
    examination = examine_jobs("c", "a", "a")
    assert set(examination.records) == {record("a"), record("b"), record("c")}


def test_inputs_outside_of_what_jobs_make_are_not_looked_beside():
    # given
    write("elsewhere/out.txt", "text")
    shutil.copy(record("a"), "elsewhere/provenance.json")
    edit("c", inputs=hashes_of("elsewhere/out.txt"))
    # when
    examination = examine_jobs("c")
    # then
    assert list(examination.records) == [record("c")]
    assert examination.findings == []


def test_a_file_where_jobs_write_needs_a_record_and_one_elsewhere_none():
    # given
    file_of_a_job = "reports/x/input.txt"
    file_of_the_user = "mine/x/input.txt"
    write(file_of_a_job, "text")
    write(file_of_the_user, "text")
    # when
    edit("c", inputs=hashes_of(file_of_a_job))
    with_file_of_a_job = examine_jobs("c")
    edit("c", inputs=hashes_of(file_of_the_user))
    with_file_of_the_user = examine_jobs("c")
    # then
    unrecorded = Finding(UNRECORDED, file_of_a_job, record("c"), "no record")
    assert with_file_of_a_job.findings == [unrecorded]
    assert with_file_of_the_user.findings == []


def test_an_input_that_is_a_record_needs_none_itself_and_is_compared():
    # given
    edit("c", inputs=hashes_of(record("a")))
    # when
    as_recorded = differences_of("c")
    edit("a", seconds=2.0)
    after_an_edit = differences_of("c")
    # then
    assert as_recorded == []
    assert after_an_edit == [(STALE, output("c"))]


def test_an_input_without_a_record_that_was_changed_is_named_once():
    # given
    write("data/raw/x/file", "text")
    edit("b", inputs={"data/raw/x/file": "0" * 64})
    edit("c", inputs={"data/raw/x/file": "0" * 64})
    # when
    with_the_file = differences_of("b", "c")
    Path("data/raw/x/file").unlink()
    without_the_file = differences_of("b", "c")
    # then
    assert with_the_file == [(UNRECORDED, "data/raw/x/file")]
    assert without_the_file == [], "not pulled, as its job"


def test_an_input_that_is_lost_is_named_once_and_says_whose_it_is():
    # given
    edit("b", inputs={"captions.rst": "0" * 64})
    edit("c", inputs={"captions.rst": "0" * 64})
    # when
    without_the_file = examine_jobs("b", "c")
    write("captions.rst", "another text")
    with_another_text = differences_of("b", "c")
    # then
    reason = f"an input of {output('b')}"
    assert without_the_file.findings == [Finding(MISSING, "captions.rst", record("b"), reason)]
    assert with_another_text == [(STALE, output("b")), (STALE, output("c"))]


def test_every_other_input_makes_a_finding_and_a_job_without_outputs_is_named_by_its_record():
    # given
    write("one.txt", "one")
    write("same.txt", "same")
    write("other.txt", "other")
    recorded_inputs = {
        "one.txt": "0" * 64,
        **hashes_of("same.txt"),
        "other.txt": "1" * 64,
    }
    edit("c", inputs=recorded_inputs, outputs={})
    # when
    examination = examine_jobs("c")
    # then
    assert examination.findings == [
        Finding(STALE, record("c"), record("c"), "one.txt differs from the record"),
        Finding(STALE, record("c"), record("c"), "other.txt differs from the record"),
    ]


def test_a_record_with_an_output_elsewhere_is_another_jobs():
    # given
    write("results/c/more.txt", "more")
    outputs_in_folder = hashes_of(output("c"), "results/c/more.txt")
    output_elsewhere = hashes_of(output("b"))
    # when
    edit("c", outputs=outputs_in_folder)
    with_two_in_its_folder = differences_of("c")
    edit("c", outputs=outputs_in_folder | output_elsewhere)
    with_one_elsewhere = differences_of("c")
    # then
    assert with_two_in_its_folder == []
    assert with_one_elsewhere == [(CHANGED, record("c"))]


def test_a_job_of_which_one_output_is_here_was_run():
    # given
    edit("c", outputs=hashes_of(output("c")) | {"results/c/more.txt": "0" * 64})
    provenance.gather([Path("results/a")])
    gathered = provenance.load()
    gathered[record("c")] = [record_of("c")]
    provenance.save(gathered)
    Path(record("c")).unlink()
    # when
    with_one_output = differences_of("c")
    Path(output("c")).unlink()
    with_no_output = examine_jobs("c")
    # then
    assert set(with_one_output) == {(UNRECORDED, output("c")), (MISSING, "results/c/more.txt")}
    assert with_no_output.absent == [record("c")]
    assert with_no_output.findings == []
    assert record("c") not in with_no_output.records


def test_what_a_lost_record_leaves_behind_is_told_from_other_jobs_files():
    """Beside it: an evaluation group of another job, DVC's and temporary files, a folder."""
    # given
    path_of_group_record = "results/c/two.provenance.json"
    Path(record("c")).unlink()
    write(path_of_group_record, "")
    write("results/c/two.parquet", "")
    write("results/c/c.dvc", "")
    write("results/c/half.tmp", "")
    Path("results/c/folder").mkdir()
    # when
    with_output_of_c = differences_of("c")
    Path(output("c")).unlink()
    without_output_of_c = examine_jobs("c")
    Path(path_of_group_record).unlink()
    without_record_of_group = examine([path_of_group_record])
    # then
    assert with_output_of_c == [(UNRECORDED, output("c"))]
    assert without_output_of_c.absent == [record("c")]
    assert kinds_and_files(without_record_of_group) == [(UNRECORDED, "results/c/two.parquet")]


def test_of_several_gathered_records_the_best_one_counts_and_what_differs_from_it_is_found():
    # given
    write("results/c/more.txt", "more")
    right_outputs = hashes_of(output("c"), "results/c/more.txt")
    right_record = record_of("c") | {"outputs": right_outputs}
    half_right_outputs = right_outputs | {"results/c/more.txt": "0" * 64}
    half_right_record = record_of("c") | {"outputs": half_right_outputs}
    wrong_outputs = {output("c"): "1" * 64, "results/c/more.txt": "1" * 64}
    wrong_record = record_of("c") | {"outputs": wrong_outputs}
    Path(record("c")).unlink()
    # when
    provenance.save({record("c"): [wrong_record, half_right_record]})
    with_the_better_one_last = differences_of("c")
    provenance.save({record("c"): [half_right_record, wrong_record]})
    with_the_better_one_first = differences_of("c")
    provenance.save({record("c"): [wrong_record, half_right_record, right_record]})
    with_a_right_one = examine_jobs("c")
    # then
    expected_differences = {(UNRECORDED, output("c")), (CHANGED, "results/c/more.txt")}
    assert set(with_the_better_one_last) == expected_differences
    assert set(with_the_better_one_first) == expected_differences
    assert with_a_right_one.records[record("c")]["outputs"] == right_outputs
    assert kinds_and_files(with_a_right_one) == [(UNRECORDED, output("c"))]


def finding_of(kind: str, number: int, reason: str = "") -> Finding:
    """A finding about file f01 of job 1, or of another number."""
    return Finding(kind, f"f{number:02}", f"job{number}", reason)


def test_ten_files_of_a_kind_are_listed_and_the_first_three_are_in_the_advice():
    # given
    ten_findings = [finding_of(CHANGED, number) for number in range(10)]
    twelve_findings = [finding_of(CHANGED, number) for number in range(12)]
    first_ten_files = [f"  f{number:02}" for number in range(10)]
    # when
    heading_of_ten, *files_of_ten, advice_on_ten = report_lines(ten_findings)
    heading_of_twelve, *files_of_twelve, _ = report_lines(twelve_findings)
    # then
    assert heading_of_ten.endswith(": 10")
    assert files_of_ten == first_ten_files
    assert "`snakemake f00 f01 f02`" in advice_on_ten
    assert heading_of_twelve.endswith(": 12")
    assert files_of_twelve == [*first_ten_files, "  and 2 more"]


def test_a_stale_job_is_listed_once_with_its_last_reason_and_inputs_are_counted():
    # given
    findings = [finding_of(STALE, 2, "x"), finding_of(STALE, 2, "y"), finding_of(STALE, 3, "x")]
    # when
    heading, *files, advice = report_lines(findings)
    # then
    assert re.search(r": 2 \(.*3 inputs\)$", heading)
    assert files == ["  f02 (y)", "  f03 (x)"]
    assert "`snakemake --forcerun f02 f03`" in advice


def test_a_damaged_record_is_named_by_itself():
    # given
    path_of_group_record = "results/c/two.provenance.json"
    output_of_group = "results/c/two.parquet"
    write(path_of_group_record, "{")
    # when
    write(output_of_group, "")
    (finding_beside_an_output,) = examine([path_of_group_record]).findings
    Path(output_of_group).unlink()
    (finding_alone,) = examine([path_of_group_record]).findings
    # then
    assert finding_beside_an_output.kind == CHANGED
    assert finding_beside_an_output.file == path_of_group_record
    assert finding_beside_an_output.job == path_of_group_record
    assert finding_alone == finding_beside_an_output


# Records that somebody edited


@pytest.mark.parametrize(
    "change",
    [{"cfg": {"a": [2], "b": 1}}, {"outputs": {}}],
    ids=["order of settings", "no outputs"],
)
def test_an_edited_record_contradicts_the_gathered_line(change):
    provenance.gather([Path("results")])
    edit("a", **change)
    assert (CHANGED, record("a")) in differences_of("a")


def test_a_newer_record_contradicts_nothing():
    provenance.gather([Path("results")])
    make("c", "made c", "b", ended="2026-01-02T10:00:00.000+00:00")
    assert differences_of("c") == []


def test_a_manifest_that_states_another_hash_than_the_record_is_named():
    # given
    manifest = "results/a/manifest.json"
    write(manifest, json.dumps({"files": {"out.txt": "0" * 64}}))
    edit("a", outputs=hashes_of(output("a"), manifest))
    # when
    (finding,) = examine_jobs("a").findings
    # then
    assert (finding.kind, finding.file) == (CHANGED, manifest)
    assert output("a") in finding.why


def test_a_command_in_advice_has_a_file_as_one_word():
    """Of a name that a shell would take apart and carry out."""
    name = output("it's $(touch owned) -x")
    *_, last_line = report_lines([Finding(CHANGED, name, record("a"))])
    command = last_line[last_line.rindex("`snakemake ") + 1 :]
    assert shlex.split(command.removesuffix(".").removesuffix("`")) == ["snakemake", name]
