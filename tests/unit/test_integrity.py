"""What jobs look at before they build on their inputs."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.jobs.job import job
from rib.records import hashing, integrity, provenance
from tiny.projects.records import FACTS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Paths are relative to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_file(path: str, text: str) -> Path:
    """Write a file, and the folders above it; gives its path."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def write_manifest(manifest: str, *files: Path, **facts) -> Path:
    """Write a manifest that lists files beside it, and states these facts; gives its path."""
    hash_of_name = {file.name: sha256(file) for file in files}
    return write_file(manifest, json.dumps({"files": hash_of_name, **facts}))


def write_listed_file(path: str, text: str, manifest: str) -> Path:
    """Write a file and a manifest that lists it; gives the file's path."""
    file = write_file(path, text)
    write_manifest(manifest, file)
    return file


def write_record(record: str, *files: str) -> None:
    """Write the record of a job that made these files."""
    outputs = {file: sha256(Path(file)) for file in files}
    facts = {**FACTS, "log": "l", "inputs": {}, "outputs": outputs, "sizes": {}}
    provenance.write(Path(record), facts)


def sha256_of_text(text: str) -> str:
    """The hash of a text by hashlib."""
    return hashlib.sha256(text.encode()).hexdigest()


def change_in_place(path: Path) -> None:
    """Change one byte; size and time of modification stay."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def exchange_for_another(path: Path) -> None:
    """Put another file in its place, of the same size and time of modification."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"!" * stat.st_size)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


# Inputs before a job begins


@pytest.mark.parametrize(
    ("file", "manifest"),
    [
        ("prepare/a/images.npy", "prepare/a/manifest.json"),
        ("evaluate/r/s.parquet", "evaluate/r/s.manifest.json"),
    ],
)
def test_what_a_watched_manifest_lists_is_read_again(file, manifest):
    listed_file = write_listed_file(file, "bytes", manifest)
    integrity.refuse_changed([Path(manifest)])
    change_in_place(listed_file)
    with pytest.raises(UserError, match=f"^{file}: .*`snakemake {file}`"):
        integrity.refuse_changed([Path(manifest)])


def test_a_table_that_was_edited_is_no_input():
    table = write_file("reports/tables/mri.csv", "1.0")
    write_record("reports/tables/provenance.json", "reports/tables/mri.csv")
    integrity.refuse_changed([table])
    table.write_text("9.0")
    with pytest.raises(UserError, match="^reports/tables/mri.csv: "):
        integrity.refuse_changed([table])


def test_a_manifest_that_differs_from_its_record_is_refused_though_its_files_agree():
    images = write_file("results/r/images.npy", "pixels")
    manifest = write_manifest("results/r/manifest.json", images)
    write_record("results/r/provenance.json", "results/r/images.npy", "results/r/manifest.json")
    integrity.refuse_changed([manifest])
    images.write_text("others")
    write_manifest("results/r/manifest.json", images)
    with pytest.raises(UserError, match="^results/r/manifest.json and 1 more: "):
        integrity.refuse_changed([manifest])


@pytest.mark.parametrize(
    "manifest",
    ["[]", '{"files": []}', '{"files": {"../x": "%s"}}' % ("0" * 64), '{"files": {"x": "0"}}'],
    ids=["a list", "no mapping", "a file elsewhere", "a short hash"],
)
def test_a_manifest_in_another_form_is_named(manifest):
    path = write_file("r/manifest.json", manifest)
    with pytest.raises(UserError, match="^r/manifest.json "):
        integrity.refuse_changed([path])


def test_files_that_no_record_names_and_listed_ones_that_are_not_here_are_accepted():
    caption = write_file("captions.rst", "text")
    checkpoint = write_listed_file("r/checkpoint.safetensors", "bytes", "r/manifest.json")
    checkpoint.unlink()
    checked_files = integrity.refuse_changed([caption, Path("r/manifest.json")])
    assert checked_files == {}


def test_every_changed_file_is_counted_and_five_are_in_the_command():
    # given
    file_of_name = {name: write_file(f"r/{name}.npy", name) for name in "abcdefg"}
    manifest = write_manifest("r/manifest.json", *file_of_name.values())
    for changed_now, in_command, and_more in (
        (["c"], ["c"], ""),
        (["d"], ["c", "d"], " and 1 more"),
        (["a", "b", "e", "f", "g"], ["a", "b", "c", "d", "e"], " and 6 more"),
    ):
        # when
        for name in changed_now:
            change_in_place(file_of_name[name])
        # then
        paths = [f"r/{name}.npy" for name in in_command]
        first_path, *_ = paths
        command = " ".join(["snakemake", *paths])
        with pytest.raises(UserError, match=f"^{first_path}{and_more}: .*`{command}`"):
            integrity.refuse_changed([manifest])


def test_what_inputs_should_be_is_gathered_from_records_and_manifests():
    """Records of all jobs of an input's folder; its other files have no entry."""
    # given two tables with records, a file that no job made, and manifests
    table = write_file("reports/t/a.csv", "1")
    other_table = write_file("reports/t/b.csv", "2")
    write_record("reports/t/provenance.json", "reports/t/a.csv")
    write_record("reports/t/other.provenance.json", "reports/t/b.csv")
    plain = write_file("reports/t/c.txt", "no job made it")
    images = write_file("p/images.npy", "pixels")
    manifest = write_manifest("p/manifest.json", images, device="cpu")
    empty_manifest = write_file("p/empty.manifest.json", "{}")
    missing_manifest = Path("nowhere/manifest.json")
    # when, then
    inputs = [table, plain, manifest, empty_manifest, missing_manifest]
    assert integrity.claims(inputs) == {table: {sha256(table)}, images: {sha256(images)}}
    assert integrity.claims([other_table, images]) == {other_table: {sha256(other_table)}}, (
        "the images' manifest was not asked"
    )
    write_file("reports/t/provenance.json", "{")
    assert integrity.claims([table]) == {}


# Inputs while a job runs


def test_a_job_builds_nothing_on_a_damaged_input(capfd):
    images = write_listed_file("in/images.npy", "pixels", "in/manifest.json")
    change_in_place(images)
    with (
        pytest.raises(SystemExit),
        job(
            rule="r",
            name="n",
            cfg={},
            inputs={"manifest": "in/manifest.json", "images": "in/images.npy"},
            outputs={"data": "out.x"},
            log_file="log",
        ) as output,
    ):
        output["data"].write_text("built")
    assert "in/images.npy: " in capfd.readouterr().err
    assert not Path("out.x").exists()


OUTPUTS = {
    "data": "results/out.x",
    "state": "results/state.x",
    "provenance": "results/provenance.json",
}


def running_job(**more):
    """A job that reads a file which a manifest lists, and one that nothing lists."""
    inputs = {"manifest": "in/manifest.json", "index": "in/index.txt"}
    return job(rule="r", name="n", cfg={}, inputs=inputs, outputs=OUTPUTS, log_file="log", **more)


def write_outputs(output):
    """Write what `running_job` makes."""
    output["data"].write_text("made")
    output["state"].write_text("made")


@pytest.fixture
def inputs():
    """Paths of a job's inputs, by what they are."""
    return {
        "listed": write_listed_file("in/images.npy", "pixels", "in/manifest.json"),
        "plain": write_file("in/index.txt", "rows"),
    }


@pytest.mark.parametrize(
    ("which", "exchange"),
    [
        ("listed", change_in_place),
        ("listed", exchange_for_another),
        ("listed", remove),
        ("plain", change_in_place),
    ],
)
def test_an_input_that_is_exchanged_while_a_job_reads_it_makes_no_result(
    inputs, which, exchange, capfd
):
    with pytest.raises(SystemExit), running_job() as output:
        exchange(inputs[which])
        write_outputs(output)
    assert f"{inputs[which]}: was changed while" in capfd.readouterr().err
    assert not Path("results").exists()


def test_a_job_that_fails_of_exchanged_bytes_names_the_file(inputs, capfd):
    with pytest.raises(SystemExit), running_job():
        exchange_for_another(inputs["listed"])
        raise ValueError("header too large")
    printed = capfd.readouterr().err
    assert f"{inputs['listed']}: was changed while" in printed
    assert "header" not in printed


def test_a_job_does_not_resume_from_a_state_with_bytes_of_an_exchanged_input(inputs):
    """The next call has the old bytes again, so its private folder has the same name."""
    # given
    bytes_before = inputs["plain"].read_bytes()
    with pytest.raises(SystemExit), running_job(resumes="state.x") as output:
        output["state"].write_text("of other bytes")
        inputs["plain"].write_bytes(b"oops")
    # when
    inputs["plain"].write_bytes(bytes_before)
    with running_job(resumes="state.x") as output:
        # then
        assert not output["state"].exists()
        write_outputs(output)


def test_an_input_that_is_exchanged_and_put_back_is_told(inputs):
    """The same bytes at another time are those of a link into DVC's cache, too."""
    listed = inputs["listed"]
    away = listed.with_name("away")
    with running_job() as output:
        listed.rename(away)
        listed.write_text("others")
        away.rename(listed)
        write_outputs(output)
    assert Path("results/out.x").exists()
    assert f"WARNING {listed} was touched" in Path("log").read_text()


def test_an_input_that_lies_still_is_read_once(inputs, monkeypatch):
    with running_job() as output:
        monkeypatch.setattr(integrity, "sha256", fail_if_read)
        write_outputs(output)
    assert "touched" not in Path("log").read_text()


# Hashes


def fail_if_read(*_):
    """In place of a function that hashes a file: none may be read."""
    pytest.fail("read again")


def ignore_progress(number_of_bytes):
    """What is told of the bytes that were hashed, which a test doesn't ask about."""


@pytest.fixture
def remembers_every_file(monkeypatch):
    """Every file counts as big, and as one that has lain there for long."""
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "SETTLED", -1.0)


@pytest.fixture
def big(remembers_every_file):
    """A big file whose hash is remembered."""
    path = write_file("big.npy", "many pixels")
    hashing.remembered_hash(path, ignore_progress)
    return path


def test_hashes_are_those_of_hashlib_and_missing_files_have_none(monkeypatch):
    # given chunks of four bytes
    monkeypatch.setattr("rib.base.files.CHUNK", 4)
    digits = write_file("a.bin", "0123456789")
    empty = write_file("b.bin", "")
    link = Path("link.bin")
    link.symlink_to(digits)
    dangling_link = Path("dangling.bin")
    dangling_link.symlink_to("nowhere")
    missing = Path("gone.bin")
    folder = Path("folder")
    folder.mkdir()
    # when
    files = [digits, empty, link, dangling_link, missing, folder, digits]
    hash_of_file = hashing.hashes(iter(files), "hashing")
    # then files are in their order, each once
    assert list(hash_of_file.items()) == [
        (digits, sha256_of_text("0123456789")),
        (empty, sha256_of_text("")),
        (link, sha256_of_text("0123456789")),
        (dangling_link, None),
        (missing, None),
        (folder, None),
    ]
    counted_bytes = []
    assert hashing.sha256(digits, counted_bytes.append) == sha256_of_text("0123456789")
    assert counted_bytes == [4, 4, 2]


def test_progress_counts_every_byte(progress):
    ten_bytes = write_file("a.bin", "0123456789")
    three_bytes = write_file("b.bin", "012")
    hashing.hashes([ten_bytes, three_bytes, Path("gone.bin")], "looking")
    assert progress() == [("looking", 13, 13, "B")]


def test_a_big_file_that_was_changed_is_read_again_whatever_its_time_says(big):
    change_in_place(big)
    assert hashing.remembered_hash(big, ignore_progress) == sha256(big)


def test_another_big_file_of_the_same_size_has_its_own_hash(big):
    other = write_file("other.npy", "other pixel")
    assert other.stat().st_size == big.stat().st_size
    assert hashing.remembered_hash(other, ignore_progress) == sha256(other)


@pytest.mark.parametrize("fact", ["size", "modified", "changed", "inode"])
def test_a_note_of_other_facts_is_not_believed(big, fact):
    # given a note that is believed, though it states no true hash
    (note,) = hashing.MEMORY.iterdir()
    content = json.loads(note.read_text())
    content["sha256"] = "believed"
    note.write_text(json.dumps(content))
    assert hashing.remembered_hash(big, ignore_progress) == "believed"
    # when it is of other facts
    content["signature"][fact] += 1
    note.write_text(json.dumps(content))
    # then
    assert hashing.remembered_hash(big, ignore_progress) == sha256(big)
    assert json.loads(note.read_text())["sha256"] == sha256(big), "and is corrected"


@pytest.mark.parametrize("note", ['{"sha256": "believed"}', "{"])
def test_a_note_that_says_nothing_is_no_hindrance(big, note):
    (path,) = hashing.MEMORY.iterdir()
    path.write_text(note)
    assert hashing.remembered_hash(big, ignore_progress) == sha256(big)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(remembers_every_file, monkeypatch):
    path = write_file("big.npy", "many pixels")
    read = hashing.sha256

    def read_and_change(*arguments):
        digest = read(*arguments)
        path.write_text("more pixels than there were")
        return digest

    monkeypatch.setattr(hashing, "sha256", read_and_change)
    hashing.remembered_hash(path, ignore_progress)
    assert not hashing.MEMORY.exists()


@pytest.mark.parametrize(("settled", "remembered"), [(-1.0, True), (hashing.SETTLED, False)])
def test_only_a_file_that_has_settled_is_remembered(monkeypatch, settled, remembered):
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "SETTLED", settled)
    path = write_file("big.npy", "many pixels")
    os.utime(path, (0, 0))  # the time of modification may say anything
    hashing.remembered_hash(path, ignore_progress)
    assert hashing.MEMORY.exists() == remembered


def test_small_files_are_always_read(monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED", -1.0)
    monkeypatch.setattr(hashing, "REMEMBERED", 5)
    small = write_file("small.npy", "1234")
    hashing.remembered_hash(small, ignore_progress)
    assert not hashing.MEMORY.exists()
    big = write_file("big.npy", "12345")
    hashing.remembered_hash(big, ignore_progress)
    assert hashing.MEMORY.exists()


def test_a_job_reads_a_big_input_once(big, monkeypatch):
    manifest = write_manifest("manifest.json", big)
    monkeypatch.setattr(hashing, "sha256", fail_if_read)
    integrity.refuse_changed([manifest])
    hash_of_file = hashing.hashes([big], "looking", remember=True)
    assert hash_of_file == {big: sha256(big)}
    assert hashing.MEMORY.parts[0] == "work", "which is nobody's result"


# Hashes of outputs, which the job remembers


def test_what_a_job_has_hashed_is_not_hashed_by_the_next(monkeypatch):
    """If it is so big that hashing takes longer than to wait until it has settled."""
    # given a job that hashes its outputs before they have their names
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "REMEMBERED_AT_ONCE", 10)
    monkeypatch.setattr(hashing, "SETTLED", 0.05)
    for name, text in {"big": "many pixels", "small": "few"}.items():
        staged = write_file(f"{name}.staged", text)
        signature = hashing.signature(staged)
        digest = sha256(staged)
        output = Path(f"{name}.npy")
        staged.rename(output)
        hashing.remember_hash(output, digest, signature)
    # when
    read_files = []

    def note_and_read(path, _):
        read_files.append(path.name)
        return "read"

    monkeypatch.setattr(hashing, "sha256", note_and_read)
    hash_of_big = hashing.remembered_hash(Path("big.npy"), ignore_progress)
    hash_of_small = hashing.remembered_hash(Path("small.npy"), ignore_progress)
    # then
    assert hash_of_big == sha256_of_text("many pixels")
    assert hash_of_small == "read"
    assert read_files == ["small.npy"]


def test_the_hash_of_a_file_that_changed_since_is_not_remembered(monkeypatch):
    monkeypatch.setattr(hashing, "REMEMBERED_AT_ONCE", 1)
    monkeypatch.setattr(hashing, "SETTLED", 0.01)

    longer = write_file("big.npy", "many pixels")
    signature = hashing.signature(longer)
    digest = sha256(longer)
    longer.write_text("more pixels than there were")
    hashing.remember_hash(longer, digest, signature)
    assert not hashing.MEMORY.exists()

    same_size = write_file("same.npy", "many pixels")
    signature = hashing.signature(same_size)
    digest = sha256(same_size)

    def change_while_waiting(_):
        """In place of waiting until the file has settled."""
        same_size.write_text("last pixels")

    monkeypatch.setattr(hashing.time, "sleep", change_while_waiting)
    hashing.remember_hash(same_size, digest, signature)
    assert not hashing.MEMORY.exists()


def test_a_job_that_can_note_no_hash_has_done_its_work(monkeypatch):
    monkeypatch.setattr(hashing, "REMEMBERED_AT_ONCE", 1)
    monkeypatch.setattr(hashing, "SETTLED", 0.01)
    path = write_file("big.npy", "many pixels")
    in_place_of_a_folder = Path(hashing.MEMORY.parts[0])
    in_place_of_a_folder.write_text("not a folder")
    hashing.remember_hash(path, sha256(path), hashing.signature(path))
    assert in_place_of_a_folder.read_text() == "not a folder"


def test_a_job_remembers_the_hashes_of_its_outputs(inputs, monkeypatch):
    remembered = {}

    def note(path, digest, _):
        remembered[str(path)] = digest

    monkeypatch.setattr("rib.jobs.job.remember_hash", note)
    with running_job() as output:
        write_outputs(output)
    assert remembered["results/out.x"] == sha256(Path("results/out.x"))
