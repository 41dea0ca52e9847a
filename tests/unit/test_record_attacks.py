"""Records, manifests and gathered lines that somebody edited.

Edits are noticed, and never taken for the truth.
"""

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.jobs.job import job
from rib.records import integrity, provenance, track
from rib.records.verify import CHANGED, Finding, examine, report_lines
from tiny.records import edit, make, output, record

OWN = Path(record("a"))
LINK, OUTSIDE = "results/a/link.txt", "outside"
RECORDS, ADOPTION, CHANGES = (
    pytest.mark.attack(topic) for topic in ("records", "adoption", "changed results")
)
# Another value of each part, and of parts of a part.
EDITS = {
    "rule": {"rule": "other"},
    "log": {"log": "logs/other.log"},
    "settings": {"cfg": {"b": 1, "a": [3]}},
    "order of settings": {"cfg": {"a": [2], "b": 1}},
    "seconds": {"seconds": 2.0},
    "end": {"ended": "2025-12-31T10:00:00.000+00:00"},
    "inputs": {"inputs": {"captions.rst": "0" * 64}},
    "no outputs": {"outputs": {}},
    "hash of an output": {"outputs": {output("a"): "0" * 64}},
    "size of an output": {"sizes": {output("a"): 7}},
    "a part more": {"seed": 3},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A finished job."""
    monkeypatch.chdir(tmp_path)
    make("a")
    return tmp_path


@pytest.fixture
def ten_seconds():
    """Longer hangs are failures."""
    usual = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)


def gathered() -> None:
    provenance.gather([Path("results")])


def flips(data: bytes):
    """Data with each bit flipped in turn."""
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def about_record() -> list[tuple[str, str]]:
    return [
        (found.kind, found.file) for found in examine([str(OWN)]).findings if found.file == str(OWN)
    ]


@pytest.mark.thorough
@RECORDS
def test_each_bit_of_a_record_counts(record_property):
    """Here one with a number that has another spelling, and with a letter that is escaped."""
    edit("a", cfg={"lr": 1e-05, "name": "ä"})
    assert about_record() == []
    for flipped in flips(OWN.read_bytes()):
        OWN.write_bytes(flipped)
        assert provenance.read(OWN) is None, flipped
    OWN.write_bytes(flipped)
    assert about_record() == [(CHANGED, str(OWN))]
    record_property("flipped bits", 8 * len(flipped))


@pytest.mark.thorough
@RECORDS
def test_each_bit_of_a_gathered_line_counts(record_property):
    gathered()
    record_property("flipped bits", 8 * provenance.FILE.stat().st_size)
    for flipped in flips(provenance.FILE.read_bytes()):
        provenance.FILE.write_bytes(flipped)
        with pytest.raises(UserError, match=r"^provenance\.jsonl, line \d"):
            provenance.load()


def without_digest(text: str) -> str:
    return re.sub(r',\s+"sha256": "\w+"', "", text)


def edited(text: str) -> str:
    return text.replace('"seconds": 1.0', '"seconds": 2.0')


@pytest.mark.parametrize("change", EDITS.values(), ids=list(EDITS))
@RECORDS
def test_an_edited_record_is_damaged(change):
    digest = re.search(r'"sha256".*', OWN.read_text())[0]
    edit("a", **change)
    OWN.write_text(re.sub(r'"sha256".*', digest, OWN.read_text()))
    assert about_record() == [(CHANGED, str(OWN))] and provenance.read(OWN) is None


@pytest.mark.parametrize(
    "change",
    [
        without_digest,
        lambda text: text.replace("1.0", "1.00"),
        lambda text: text.replace('"rule": "r"', '"rule": "x", "rule": "r"'),
        lambda text: json.dumps(json.loads(text)),
        lambda text: text.replace("sha256", "md5"),
        lambda text: text + " ",
        lambda text: "[" * 100_000,
    ],
    ids=[
        "no digest",
        "spelling of a number",
        "a part twice",
        "one line",
        "no SHA-256",
        "a blank more",
        "nesting",
    ],
)
@RECORDS
def test_a_record_in_another_form_is_damaged(change):
    OWN.write_text(change(OWN.read_text()))
    assert about_record() == [(CHANGED, str(OWN))]


@pytest.mark.parametrize("change", EDITS.values(), ids=list(EDITS))
@RECORDS
def test_an_edited_record_with_a_right_digest_contradicts_the_gathered_line(change):
    gathered()
    edit("a", **change)
    assert provenance.read(OWN) and about_record() == [(CHANGED, str(OWN))]
    if "outputs" not in change:
        with pytest.raises(UserError, match=re.escape(str(OWN))):
            track.gather([Path("results")])


def test_a_newer_record_and_one_that_was_accepted_since_contradict_nothing():
    gathered()
    for change in (
        {"ended": "2026-01-02T10:00:00.000+00:00"},
        {"accepted": [{"when": "2026-02-02T10:00:00+00:00"}]},
    ):
        make("a", **change)
        assert about_record() == [] and provenance.gather([Path("results")]) == 1


@pytest.mark.parametrize(
    "change",
    [lambda line: re.sub(r"\b[0-9a-f]{64}", "0" * 64, line), edited, without_digest],
    ids=["zeroed hashes", "seconds", "no digest"],
)
@RECORDS
def test_an_edited_gathered_line_is_named_by_its_number(change):
    gathered()
    provenance.FILE.write_text(change(provenance.FILE.read_text()))
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 1 "):
        examine([str(OWN)])


@RECORDS
def test_zeroed_hashes_of_a_line_with_a_right_digest_differ_from_the_record():
    (line,) = provenance.load().get(str(OWN), [provenance.read(OWN)])
    provenance.save({str(OWN): [{**line, "outputs": dict.fromkeys(line["outputs"], "0" * 64)}]})
    assert about_record() == [(CHANGED, str(OWN))]


def with_manifest(edit_manifest, *more: str, recorded: bool = True) -> Path:
    """A job's manifest, edited after its record was made.

    The record then states the hash of the edited one.
    """
    path = OWN.with_name("manifest.json")
    path.write_text(json.dumps({"files": {"out.txt": sha256(Path(output("a")))}}))
    right = {**provenance.read(OWN)["outputs"], str(path): sha256(path)}
    edit("a", outputs=right)
    integrity.refuse_changed([path])
    edit_manifest(path)
    edit("a", outputs={**right, str(path): sha256(path)} if recorded else right)
    return path


def wrong_digit(path: Path) -> None:
    text = path.read_text()
    digit = re.search("[0-9a-f]{64}", text)[0][0]
    path.write_text(text.replace(f'"{digit}', '"1' if digit == "0" else '"0'))


def wrong_digit_of_a_lost_file(path: Path) -> None:
    wrong_digit(path)
    Path(output("a")).unlink()


def other_file_too(path: Path) -> None:
    Path(output("a")).write_text("evil")
    path.write_text(json.dumps({"files": {"out.txt": sha256(Path(output("a")))}}))


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("change", [wrong_digit, wrong_digit_of_a_lost_file, other_file_too])
@RECORDS
def test_no_job_takes_over_what_an_edited_manifest_states(change, recorded):
    """Even where the record agrees with the manifest, and the manifest with the file."""
    path = with_manifest(change, recorded=recorded)
    with (
        pytest.raises(SystemExit),
        job(
            rule="r", name="n", cfg={}, inputs={"m": str(path)}, outputs={"x": "x"}, log_file="log"
        ),
    ):
        pytest.fail("the job has started")
    assert not Path("x").exists()


@RECORDS
def test_a_manifest_that_states_another_hash_than_the_record_is_named_by_verify():
    path = with_manifest(wrong_digit)
    (found,) = examine([str(OWN)]).findings
    assert (found.kind, found.file) == (CHANGED, str(path)) and output("a") in found.why


def test_a_job_records_hashes_of_bytes():
    made = with_manifest(lambda path: None)
    outputs = {name: f"results/b/{name}.json" for name in ("x", "provenance")}
    with job(
        rule="r",
        name="n",
        cfg={},
        inputs={"m": [str(made), output("a")]},
        outputs=outputs,
        log_file="l",
    ) as out:
        out["x"].write_text("x")
    assert provenance.read(Path("results/b/provenance.json"))["inputs"] == {
        str(path): sha256(path) for path in (made, Path(output("a")))
    }


@RECORDS
def test_accept_and_track_leave_a_damaged_record_out(caplog):
    OWN.write_text(edited(OWN.read_text()))
    assert provenance.gather([Path("results")]) == 0
    assert (
        str(OWN) in caplog.text
        and provenance.DAMAGED in caplog.text
        and "`snakemake pull`" in caplog.text
    )


# ---- adoption


def listing(**change) -> None:
    """A gathered line with a right digest; `path` may be among the changes."""
    facts = {**provenance.read(OWN), **change}
    provenance.save({facts.pop("path", str(OWN)): [facts]})


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
    "list": ["0" * 64],
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
WRONG = {
    **{f"seconds: {what}": {"seconds": number} for what, number in NUMBERS.items()},
    **{f"size: {what}": {"sizes": {output("a"): number}} for what, number in NUMBERS.items()},
    **{
        f"hash of an output: {what}": {"outputs": {output("a"): value}}
        for what, value in HASHES.items()
    },
    **{f"hash of an input: {what}": {"inputs": {"x": value}} for what, value in HASHES.items()},
    **{f"output: {what}": {"outputs": {name: "0" * 64}} for what, name in NAMES.items()},
    **{f"record: {what}": {"path": f"{name}provenance.json"} for what, name in NAMES.items()},
    "record: no record": {"path": "results/a/out.txt"},
    "input with an escape": {"inputs": {"\x1b[2J": "0" * 64}},
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
    "accepted: text": {"accepted": "yes"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
@ADOPTION
def test_a_gathered_line_with_a_wrong_part_is_named_by_its_number(change):
    listing()
    line = provenance.FILE.read_text()
    listing(**change)
    provenance.FILE.write_text(line + provenance.FILE.read_text())
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 2 ") as error:
        provenance.load()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "1" * 5000, '{"a": ' * 10_000], ids=["lists", "digits", "objects"]
)
@ADOPTION
def test_a_line_that_no_parser_takes_is_named_by_its_number(line):
    provenance.FILE.write_text(line + "\n")
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 1 "):
        provenance.load()


def adopted() -> dict:
    return provenance.match(provenance.load(), lambda file: False, lambda file: False)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_out(path: Path) -> None:
    Path(OUTSIDE).write_text("secret")
    path.symlink_to(Path(OUTSIDE).resolve())


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.usefixtures("ten_seconds")
@pytest.mark.parametrize("file", [output("a"), str(OWN)], ids=["output", "record"])
@pytest.mark.parametrize("plant", [a_folder, os.mkfifo, a_link_to_a_device, a_link_out, a_loop])
@ADOPTION
def test_what_is_no_regular_file_in_the_folders_of_results_is_not_opened(plant, file):
    listing()
    Path(file).unlink()
    plant(Path(file))
    with pytest.raises(UserError, match=f"^{file}"):
        adopted()
    assert not Path(OUTSIDE).exists() or Path(OUTSIDE).read_text() == "secret"


@pytest.mark.parametrize("name", ["results/", "results/.", "results/a", "reports//"])
@ADOPTION
def test_a_folder_is_no_output(name):
    Path("reports").mkdir()
    listing(outputs={name: "0" * 64})
    with pytest.raises(UserError, match=f"^{name}|line 1"):
        adopted()


@pytest.mark.parametrize(
    "name", ["results/a//out.txt", "results/./a/out.txt", "results/a/out.txt/", "results/a/.."]
)
@pytest.mark.parametrize("part", ["outputs", "inputs"])
@ADOPTION
def test_a_name_that_is_not_normal_is_refused(name, part):
    listing(**{part: {name: "0" * 64}})
    if part == "outputs" or name != "results/a/..":  # inputs may lie anywhere
        with pytest.raises(UserError, match="line 1"):
            adopted()


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
@RECORDS
def test_a_record_that_the_page_could_not_show_is_damaged(facts):
    edit("a", **facts)
    assert provenance.read(OWN) is None


@pytest.mark.parametrize(
    "manifest",
    [
        {"order": 1},
        {
            "order": ["m"],
            "datasets": {"m": {"manifest": "results/a/manifest.json", "sha256": "0" * 64}},
        },
        [],
        None,
        {"files": []},
        {"files": {"../x": "0" * 64}},
        {"files": {"": "0" * 64}},
        {"files": {"x": [1]}},
        {"files": {"x": "0"}},
    ],
    ids=str,
)
@RECORDS
def test_a_manifest_in_another_form_is_damaged(manifest):
    path = Path("results/a/manifest.json")
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"^{path} was edited or damaged"):
        integrity.refuse_changed([path])


@pytest.mark.usefixtures("ten_seconds")
@ADOPTION
def test_a_record_that_is_a_pipe_is_not_opened_by_verify():
    OWN.unlink()
    os.mkfifo(OWN)
    assert provenance.read(OWN) is None and examine([str(OWN)]).records == {}


@ADOPTION
def test_a_folder_that_is_a_link_out_is_refused(tmp_path_factory):
    """Adoption would set the times of files there."""
    listing()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a"
    shutil.move("results/a", elsewhere)
    Path("results/a").symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"^{output('a')}"):
        adopted()


def moved_results(elsewhere: Path) -> str:
    shutil.move("results", elsewhere / "disk")
    Path("results").symlink_to(elsewhere / "disk")
    return output("a")


def dvc_link(elsewhere: Path) -> str:
    cached = elsewhere / "cache/files/md5" / sha256(Path(output("a")))[:2] / ("0" * 30)
    cached.parent.mkdir(parents=True)
    shutil.move(output("a"), cached)
    Path(output("a")).symlink_to(cached)
    return output("a")


def archive_link(elsewhere: Path) -> str:
    (elsewhere / "a.zip").write_text("archive")
    Path("data/raw/a").mkdir(parents=True)
    Path("data/raw/a/a.zip").symlink_to(elsewhere / "a.zip")
    edit("a", outputs={"data/raw/a/a.zip": sha256(elsewhere / "a.zip")})
    return "data/raw/a/a.zip"


@pytest.mark.parametrize("arrange", [moved_results, dvc_link, archive_link])
def test_links_that_users_have_are_adopted(arrange, tmp_path_factory):
    arrange(tmp_path_factory.mktemp("elsewhere"))
    listing()
    assert list(adopted()) == [str(OWN)]


NASTY = ["a b", "it's", 'say "x"', "a;touch owned", "$(touch owned)", "`touch owned`", "-x", "*"]


def of_adoption(name: str) -> str:
    path, facts = make(name)
    Path(output(name)).write_text("changed")
    provenance.save({path: [facts]})
    with pytest.raises(UserError) as error:
        adopted()
    return str(error.value)


def of_a_job(name: str) -> str:
    make(name)
    Path(output(name)).write_text("changed")
    with pytest.raises(UserError) as error:
        integrity.refuse_changed([Path(output(name))])
    return str(error.value)


def of_verify(name: str) -> str:
    return report_lines([Finding(CHANGED, output(name), record(name))])[-1]


@pytest.mark.parametrize("source", [of_adoption, of_a_job, of_verify])
@pytest.mark.parametrize("name", NASTY)
@ADOPTION
def test_a_command_in_advice_has_the_files_as_words(name, source):
    said = source(name)
    command = said[said.rindex("`snakemake ") :].removesuffix(".")[1:-1]
    assert shlex.split(command)[:2] == ["snakemake", output(name)]


# ---- changed results


def changed(other_time=(), unfinished=()) -> list[str]:
    return provenance.changed(set(other_time).__contains__, set(unfinished).__contains__)


def two_outputs() -> list[str]:
    Path("results/a/more.txt").write_text("more")
    both = {file: sha256(Path(file)) for file in (output("a"), "results/a/more.txt")}
    edit("a", outputs=both, sizes={file: Path(file).stat().st_size for file in both})
    return list(both)


@CHANGES
def test_a_file_with_another_time_or_size_is_named():
    one, other = two_outputs()
    assert changed() == [] and changed([one]) == [one] and changed([one, other]) == [one, other]
    Path(other).write_text("more than before")
    assert changed() == [other] and changed([one]) == [one, other]
    assert changed([one], unfinished=[one, other]) == []


@CHANGES
def test_a_damaged_record_is_named_with_the_changed_files():
    OWN.write_text(edited(OWN.read_text()))
    assert changed() == [str(OWN)]


def test_where_all_files_have_another_time_only_sizes_count():
    one, other = two_outputs()
    assert changed([one, other, str(OWN)]) == []
    Path(one).write_text("other size")
    assert changed([one, other, str(OWN)]) == [one]


@CHANGES
def test_a_link_in_a_loop_is_named_though_it_has_no_size():
    """Snakemake takes it for a file that nobody asked for, and has nothing to do."""
    one, other = two_outputs()
    Path(one).unlink()
    a_loop(Path(one))
    assert changed([one]) == changed([one, other, str(OWN)]) == [one]
    assert changed([one], unfinished=[one]) == []


def test_files_that_are_not_here_are_not_changed():
    one, _ = two_outputs()
    Path(one).unlink()
    Path(one).symlink_to("nowhere")
    assert changed([one]) == []
    Path(one).unlink()
    assert changed() == []
