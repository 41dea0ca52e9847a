"""Records, manifests and gathered lines that somebody edited or damaged."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.jobs.job import job
from rib.records import integrity, provenance
from rib.records.verify import CHANGED, Finding, examine, report_lines
from tiny.projects.records import edit, make, output, record

OWN = Path(record("a"))
ZEROS = "0" * 64  # in place of a hash
# Another value of each part, and of parts of a part.
EDITS = {
    "rule": {"rule": "other"},
    "log": {"log": "logs/other.log"},
    "settings": {"cfg": {"b": 1, "a": [3]}},
    "order of settings": {"cfg": {"a": [2], "b": 1}},
    "seconds": {"seconds": 2.0},
    "end": {"ended": "2025-12-31T10:00:00.000+00:00"},
    "inputs": {"inputs": {"captions.rst": ZEROS}},
    "no outputs": {"outputs": {}},
    "hash of an output": {"outputs": {output("a"): ZEROS}},
    "size of an output": {"sizes": {output("a"): 7}},
    "a part more": {"seed": 3},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A finished job."""
    monkeypatch.chdir(tmp_path)
    make("a")
    return tmp_path


def gather_records() -> None:
    """Gather the records of all results, as after a run."""
    provenance.gather([Path("results")])


def examine_record() -> list[tuple[str, str]]:
    """What `verify` finds about the job's record itself: kind and file of each finding."""
    findings = examine([str(OWN)]).findings
    return [(finding.kind, finding.file) for finding in findings if finding.file == str(OWN)]


RECORD_IS_CHANGED = [(CHANGED, str(OWN))]  # what is then found about it


@pytest.mark.parametrize("change", EDITS.values(), ids=list(EDITS))
def test_an_edited_record_contradicts_the_gathered_line(change):
    # given
    gather_records()
    # when
    edit("a", **change)
    # then
    assert provenance.read(OWN)
    assert examine_record() == RECORD_IS_CHANGED
    states_the_outputs_that_are_here = "outputs" not in change
    if states_the_outputs_that_are_here:
        with pytest.raises(UserError, match=re.escape(str(OWN))):
            provenance.gather([Path("results")])


def test_a_newer_record_contradicts_nothing():
    # given
    gather_records()
    # when
    make("a", ended="2026-01-02T10:00:00.000+00:00")
    # then
    assert examine_record() == []
    assert provenance.gather([Path("results")]) == 1


def test_zeroed_hashes_of_a_line_differ_from_the_record():
    facts = provenance.read(OWN)
    zeroed_outputs = dict.fromkeys(facts["outputs"], ZEROS)
    provenance.save({str(OWN): [{**facts, "outputs": zeroed_outputs}]})
    assert examine_record() == RECORD_IS_CHANGED


def write_edited_manifest(edit_manifest, is_recorded: bool = True) -> Path:
    """Write a job's manifest, edit it after its record was made, and give its path.

    Args:
        edit_manifest: changes the file with a path.
        is_recorded: whether the record then states the hash of the edited one.
    """
    manifest = OWN.with_name("manifest.json")
    manifest.write_text(json.dumps({"files": {"out.txt": sha256(Path(output("a")))}}))
    outputs = {**provenance.read(OWN)["outputs"], str(manifest): sha256(manifest)}
    edit("a", outputs=outputs)
    integrity.refuse_changed([manifest])
    edit_manifest(manifest)
    if is_recorded:
        outputs[str(manifest)] = sha256(manifest)
    edit("a", outputs=outputs)
    return manifest


def wrong_digit(manifest: Path) -> None:
    """Change the first digit of the first hash in a manifest."""
    text = manifest.read_text()
    first_hash = re.search("[0-9a-f]{64}", text)[0]
    other_digit = "1" if first_hash.startswith("0") else "0"
    manifest.write_text(text.replace(first_hash, other_digit + first_hash[1:]))


def wrong_digit_of_a_lost_file(manifest: Path) -> None:
    """Change a hash in a manifest, and lose the file that has it."""
    wrong_digit(manifest)
    Path(output("a")).unlink()


def other_file_too(manifest: Path) -> None:
    """Change an output, and the manifest so that it states its hash."""
    Path(output("a")).write_text("evil")
    manifest.write_text(json.dumps({"files": {"out.txt": sha256(Path(output("a")))}}))


def leave_alone(manifest: Path) -> None:
    """Change nothing."""


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("change", [wrong_digit, wrong_digit_of_a_lost_file, other_file_too])
def test_no_job_takes_over_what_an_edited_manifest_states(change, recorded):
    """Even where the record agrees with the manifest, and the manifest with the file."""
    # given
    manifest = write_edited_manifest(change, is_recorded=recorded)
    job_that_reads_it = job(
        rule="r", name="n", cfg={}, inputs={"m": str(manifest)}, outputs={"x": "x"}, log_file="log"
    )
    # when
    with pytest.raises(SystemExit), job_that_reads_it:
        pytest.fail("the job has started")
    # then
    assert not Path("x").exists()


def test_a_manifest_that_states_another_hash_than_the_record_is_named_by_verify():
    manifest = write_edited_manifest(wrong_digit)
    (finding,) = examine([str(OWN)]).findings
    assert finding.kind == CHANGED
    assert finding.file == str(manifest)
    assert output("a") in finding.why


def test_a_job_records_hashes_of_bytes():
    # given
    manifest = write_edited_manifest(leave_alone)
    # when
    with job(
        rule="r",
        name="n",
        cfg={},
        inputs={"m": [str(manifest), output("a")]},
        outputs={"x": "results/b/x.json", "provenance": "results/b/provenance.json"},
        log_file="l",
    ) as output_files:
        output_files["x"].write_text("x")
    # then
    facts = provenance.read(Path("results/b/provenance.json"))
    assert facts["inputs"] == {
        str(manifest): sha256(manifest),
        output("a"): sha256(Path(output("a"))),
    }


def test_track_leaves_a_damaged_record_out(caplog):
    OWN.write_text(OWN.read_text()[:-9])
    assert provenance.gather([Path("results")]) == 0
    assert str(OWN) in caplog.text
    assert provenance.DAMAGED in caplog.text
    assert "`rib pull`" in caplog.text


# Files that were pulled


def save_line(**change) -> None:
    """Save the job's record as the only gathered line.

    Args:
        change: facts of the record, and `path`, its path.
    """
    facts = {**provenance.read(OWN), **change}
    path = facts.pop("path", str(OWN))
    provenance.save({path: [facts]})


LATER = "2026-01-02T10:00:00+00:00"
# Values that are wrong in a record, by what is wrong about them.
NUMBERS = {
    "huge": 10**400,
    "infinite": 1e999,
    "no number": float("nan"),
    "text": "1",
    "true": True,
    "negative": -1,
}
HASHES = {
    "short": "0" * 63,
    "long": "0" * 65,
    "capital": "A" * 64,
    "number": 1,
    "list": [ZEROS],
    "none": None,
}
NAMES = {
    "absolute": "/etc/hostname",
    "parent": "results/../../secret",
    "elsewhere": "config.yaml",
    "like a folder of results": "resultsx/a",
    "escape": "results/a/\x1b[2J",
    "line break": "results/a\nb",
}
OTHER_WRONG_PARTS = {
    "record: no record": {"path": "results/a/out.txt"},
    "input with an escape": {"inputs": {"\x1b[2J": ZEROS}},
    "rule with an escape": {"rule": "\x1b[2J"},
    "rule: list": {"rule": ["r"]},
    "settings: list": {"cfg": ["a"]},
    "settings: none": {"cfg": None},
    "outputs: list": {"outputs": [output("a")]},
    "inputs: text": {"inputs": "x"},
    "end: no time": {"ended": "now"},
    "end: number": {"ended": 5},
    "end: long ago": {"ended": "0001-01-01T00:00:00"},
    "start: number": {"started": 5},
    "versions: list": {"versions": ["torch"]},
    "accepted: text": {"accepted": "x"},
    "accepted: nothing": {"accepted": {}},
    "accepted: no settings": {"accepted": {"cfg": None, "commit": None, "date": LATER}},
    "accepted: no time": {"accepted": {"cfg": {}, "commit": None, "date": "now"}},
    "accepted: escape": {"accepted": {"cfg": {}, "commit": "\x1b[2J", "date": LATER}},
    "listed inputs: text": {"listed_inputs": "x"},
    "listed inputs: numbers": {"listed_inputs": [1]},
}


def wrong_parts() -> dict[str, dict]:
    """Changes of a record by name, each of which makes a part of it wrong."""
    changes = {}
    for what, number in NUMBERS.items():
        changes[f"seconds: {what}"] = {"seconds": number}
    for what, number in NUMBERS.items():
        changes[f"size: {what}"] = {"sizes": {output("a"): number}}
    for what, value in HASHES.items():
        changes[f"hash of an output: {what}"] = {"outputs": {output("a"): value}}
    for what, value in HASHES.items():
        changes[f"hash of an input: {what}"] = {"inputs": {"x": value}}
    for what, name in NAMES.items():
        changes[f"output: {what}"] = {"outputs": {name: ZEROS}}
    for what, name in NAMES.items():
        changes[f"record: {what}"] = {"path": f"{name}provenance.json"}
    return {**changes, **OTHER_WRONG_PARTS}


WRONG = wrong_parts()


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_a_gathered_line_with_a_wrong_part_is_named_by_its_number(change):
    # given
    save_line()
    right_line = provenance.FILE.read_text()
    save_line(**change)
    wrong_line = provenance.FILE.read_text()
    assert wrong_line != right_line
    # when
    provenance.FILE.write_text(right_line + wrong_line)
    # then
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 2 ") as error:
        provenance.load()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "1" * 5000, '{"a": ' * 10_000], ids=["lists", "digits", "objects"]
)
def test_a_line_that_no_parser_takes_is_named_by_its_number(line):
    provenance.FILE.write_text(line + "\n")
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 1 "):
        provenance.load()


def match() -> dict:
    """The gathered records whose results are here, by path of the record."""
    return provenance.match(provenance.load(), lambda file: False, lambda file: False)


@pytest.mark.parametrize("name", ["results/", "results/.", "results/a", "reports//"])
def test_a_folder_is_no_output(name):
    Path("reports").mkdir()
    save_line(outputs={name: ZEROS})
    with pytest.raises(UserError, match=f"^{re.escape(name)}|line 1"):
        match()


@pytest.mark.parametrize(
    "name", ["results/a//out.txt", "results/./a/out.txt", "results/a/out.txt/", "results/a/.."]
)
@pytest.mark.parametrize("part", ["outputs", "inputs"])
def test_a_name_that_is_not_normal_is_refused(name, part):
    """But inputs may lie anywhere, and so in a folder above that of a job, too."""
    save_line(**{part: {name: ZEROS}})
    may_lie_anywhere = part == "inputs"
    if may_lie_anywhere and name == "results/a/..":
        (line,) = provenance.load()[str(OWN)]
        assert line["inputs"] == {name: ZEROS}
    else:
        with pytest.raises(UserError, match="line 1"):
            match()


MACHINE = {"system": "Linux", "processor": "one", "python": "3.11"}


@pytest.mark.parametrize(
    "facts",
    [
        {"machine": {}},
        {"machine": {**MACHINE, "processor": 1}},
        {"versions": {"torch": 2}},
        {"started": "x"},
        {"started": "2026-01-01T10:00:00"},
        {"ended": "2026-01-01T10:00:00"},
        {"commit": [1]},
    ],
    ids=str,
)
def test_a_record_that_the_page_could_not_show_is_damaged(facts):
    edit("a", **facts)
    assert provenance.read(OWN) is None


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        None,
        {"files": []},
        {"files": {"../x": ZEROS}},
        {"files": {"": ZEROS}},
        {"files": {"x": [1]}},
        {"files": {"x": "0"}},
    ],
    ids=str,
)
def test_a_manifest_in_another_form_is_damaged(manifest):
    path = Path("results/a/manifest.json")
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"^{re.escape(str(path))} was edited or damaged"):
        integrity.refuse_changed([path])


def link_results(elsewhere: Path) -> None:
    """All results lie on another disk."""
    shutil.move("results", elsewhere / "disk")
    Path("results").symlink_to(elsewhere / "disk")


def link_to_dvc_cache(elsewhere: Path) -> None:
    """An output is a link into DVC's cache."""
    first_digits = sha256(Path(output("a")))[:2]
    cached_file = elsewhere / "cache/files/md5" / first_digits / ("0" * 30)
    cached_file.parent.mkdir(parents=True)
    shutil.move(output("a"), cached_file)
    Path(output("a")).symlink_to(cached_file)


def link_to_archive(elsewhere: Path) -> None:
    """The job's output is an archive that a user keeps elsewhere."""
    archive = elsewhere / "a.zip"
    archive.write_text("archive")
    link = Path("data/raw/a/a.zip")
    link.parent.mkdir(parents=True)
    link.symlink_to(archive)
    edit("a", outputs={str(link): sha256(archive)})


@pytest.mark.parametrize(
    "arrange",
    [link_results, link_to_dvc_cache, link_to_archive],
    ids=["moved_results", "dvc_link", "archive_link"],
)
def test_links_that_users_have_match(arrange, tmp_path_factory):
    arrange(tmp_path_factory.mktemp("elsewhere"))
    save_line()
    assert list(match()) == [str(OWN)]


# Names of jobs that a shell would take apart or carry out.
NASTY = ["a b", "it's", 'say "x"', "a;touch owned", "$(touch owned)", "`touch owned`", "-x", "*"]


def advice_after_a_pull(name: str) -> str:
    """What `rib pull` says about a job whose output was changed."""
    path, facts = make(name)
    Path(output(name)).write_text("changed")
    provenance.save({path: [facts]})
    with pytest.raises(UserError) as error:
        match()
    return str(error.value)


def advice_of_a_job(name: str) -> str:
    """What a job says that should read an output that was changed."""
    make(name)
    Path(output(name)).write_text("changed")
    with pytest.raises(UserError) as error:
        integrity.refuse_changed([Path(output(name))])
    return str(error.value)


def advice_of_verify(name: str) -> str:
    """The last line that `verify` prints about an output that was changed."""
    finding = Finding(CHANGED, output(name), record(name))
    *_, last_line = report_lines([finding])
    return last_line


def last_command_in(advice: str) -> str:
    """The last command of Snakemake that stands in an advice, between backticks."""
    start = advice.rindex("`snakemake ") + 1
    return advice[start:].removesuffix(".").removesuffix("`")


@pytest.mark.parametrize(
    "source",
    [advice_after_a_pull, advice_of_a_job, advice_of_verify],
    ids=["after_a_pull", "of_a_job", "of_verify"],
)
@pytest.mark.parametrize("name", NASTY)
def test_a_command_in_advice_has_the_files_as_words(name, source):
    command = last_command_in(source(name))
    program, file, *_ = shlex.split(command)
    assert program == "snakemake"
    assert file == output(name)
