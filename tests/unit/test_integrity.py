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
from tiny.records import FACTS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(path: str, text: str, manifest: str | None = None, **facts) -> Path:
    """A file, and its manifest where one is named."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    if manifest:
        Path(manifest).write_text(
            json.dumps({"files": {Path(path).name: sha256(Path(path))}, **facts})
        )
    return Path(path)


def recorded(record: str, *files: str) -> None:
    outputs = {file: sha256(Path(file)) for file in files}
    provenance.write(
        Path(record), {**FACTS, "log": "l", "inputs": {}, "outputs": outputs, "sizes": {}}
    )


def changed_in_place(path: Path) -> None:
    """One byte is another, size and time of modification stay."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("file", "manifest"),
    [
        ("data/raw/a/a.zip", "data/raw/a/a.zip.manifest.json"),
        ("prepare/a/images.npy", "prepare/a/manifest.json"),
        ("models/m/weights.safetensors", "models/m/manifest.json"),
        ("finetune/r/checkpoint.safetensors", "finetune/r/manifest.json"),
        ("evaluate/r/s.parquet", "evaluate/r/s.manifest.json"),
    ],
)
def test_what_a_watched_manifest_lists_is_read_again(file, manifest):
    path = made(file, "bytes", manifest)
    integrity.refuse_changed([Path(manifest)])
    changed_in_place(path)
    with pytest.raises(UserError, match=f"^{file}: .*`snakemake {file}`"):
        integrity.refuse_changed([Path(manifest)])


def test_datasets_behind_an_evaluation_group_are_checked():
    image, manifest = made("a/images.npy", "pixels", "a/manifest.json"), Path("a/manifest.json")
    group = Path("group_g/manifest.json")
    group.parent.mkdir()
    listed = {"manifest": str(manifest), "sha256": sha256(manifest)}
    group.write_text(json.dumps({"datasets": {"a": listed}, "order": ["a"]}))
    integrity.refuse_changed([group])
    for path in (manifest, image):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        with pytest.raises(UserError, match=f"^{path}: "):
            integrity.refuse_changed([group])
        path.write_bytes(before)


def test_a_table_that_was_edited_is_no_input():
    made("reports/tables/mri.csv", "1.0")
    recorded("reports/tables/provenance.json", "reports/tables/mri.csv")
    integrity.refuse_changed([Path("reports/tables/mri.csv")])
    made("reports/tables/mri.csv", "9.0")
    with pytest.raises(UserError, match="^reports/tables/mri.csv: "):
        integrity.refuse_changed([Path("reports/tables/mri.csv")])


def test_files_that_no_record_names_and_listed_ones_that_are_not_here_are_accepted():
    made("captions.rst", "text")
    made("r/checkpoint.safetensors", "bytes", "r/manifest.json").unlink()
    integrity.refuse_changed([Path("captions.rst"), Path("r/manifest.json")])


def test_a_job_builds_nothing_on_a_damaged_input(capfd):
    changed_in_place(made("in/images.npy", "pixels", "in/manifest.json"))
    inputs, outputs = {"manifest": "in/manifest.json", "images": "in/images.npy"}, {"data": "out.x"}
    with (
        pytest.raises(SystemExit),
        job(rule="r", name="n", cfg={}, inputs=inputs, outputs=outputs, log_file="log") as out,
    ):
        out["data"].write_text("built")
    assert "in/images.npy: " in capfd.readouterr().err and not Path("out.x").exists()


def exchanged(path: Path) -> None:
    """Another file in its place, of the same size and time of modification."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"!" * stat.st_size)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)


def removed(path: Path) -> None:
    path.unlink()


EXCHANGES = pytest.mark.parametrize(
    "exchange", [changed_in_place, exchanged, removed], ids=lambda way: way.__name__
)
OUTPUTS = {
    "data": "results/out.x",
    "state": "results/state.x",
    "provenance": "results/provenance.json",
}


def running(**more):
    """A job that reads a file which a manifest lists, and one that nothing lists."""
    inputs = {"manifest": "in/manifest.json", "index": "in/index.txt"}
    return job(rule="r", name="n", cfg={}, inputs=inputs, outputs=OUTPUTS, log_file="log", **more)


@pytest.fixture
def inputs():
    """Paths of a job's inputs, by what they are."""
    return {
        "listed": made("in/images.npy", "pixels", "in/manifest.json"),
        "plain": made("in/index.txt", "rows"),
    }


@pytest.mark.attack("changed results")
@EXCHANGES
@pytest.mark.parametrize("which", ["listed", "plain"])
def test_an_input_that_is_exchanged_while_a_job_reads_it_makes_no_result(
    inputs, which, exchange, capfd
):
    with pytest.raises(SystemExit), running() as out:
        exchange(inputs[which])
        for name in ("data", "state"):
            out[name].write_text("made of other bytes")
    assert f"{inputs[which]}: was changed while" in capfd.readouterr().err
    assert not Path("results").exists()


@pytest.mark.attack("changed results")
def test_a_job_that_fails_of_exchanged_bytes_names_the_file(inputs, capfd):
    with pytest.raises(SystemExit), running():
        exchanged(inputs["listed"])
        raise ValueError("header too large")
    printed = capfd.readouterr().err
    assert f"{inputs['listed']}: was changed while" in printed and "header" not in printed


@pytest.mark.attack("changed results")
def test_a_job_does_not_resume_from_a_state_with_bytes_of_an_exchanged_input(inputs):
    """The next call has the old bytes again, so its private folder has the same name."""
    before = inputs["plain"].read_bytes()
    with pytest.raises(SystemExit), running(resumes="state.x") as out:
        out["state"].write_text("of other bytes")
        inputs["plain"].write_bytes(b"oops")
    inputs["plain"].write_bytes(before)
    with running(resumes="state.x") as out:
        assert not out["state"].exists()
        for name in ("data", "state"):
            out[name].write_text("made")


@pytest.mark.attack("changed results")
def test_an_input_that_is_exchanged_and_put_back_is_told(inputs):
    """The same bytes at another time are those of a link into DVC's cache, too."""
    away = inputs["listed"].with_name("away")
    with running() as out:
        inputs["listed"].rename(away)
        inputs["listed"].write_text("others")
        away.rename(inputs["listed"])
        for name in ("data", "state"):
            out[name].write_text("made")
    assert Path("results/out.x").exists()
    assert f"WARNING {inputs['listed']} was touched" in Path("log").read_text()


def test_an_input_that_lies_still_is_read_once(inputs, monkeypatch):
    with running() as out:
        monkeypatch.setattr(integrity, "sha256", lambda *_: pytest.fail("read again"))
        for name in ("data", "state"):
            out[name].write_text("made")
    assert "touched" not in Path("log").read_text()


@pytest.fixture
def big(folder, monkeypatch):
    """A file that counts as big and has lain there for long."""
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "SETTLED", -1.0)
    path = made("big.npy", "many pixels")
    hashing.remembered_hash(path, lambda number: None)
    return path


def test_a_big_file_is_read_once(big, monkeypatch):
    def unread(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(hashing, "sha256", unread)
    counted = []
    assert hashing.remembered_hash(big, counted.append) == sha256(big) and counted == [
        big.stat().st_size
    ]


def test_a_big_file_that_was_changed_is_read_again_whatever_its_time_says(big):
    changed_in_place(big)
    assert hashing.remembered_hash(big, lambda number: None) == sha256(big)


def test_every_changed_file_is_counted_and_five_are_in_the_command():
    files = {name: made(f"r/{name}.npy", name) for name in "abcdefg"}
    Path("r/manifest.json").write_text(
        json.dumps({"files": {path.name: sha256(path) for path in files.values()}})
    )
    for changed, wrong, more in (
        ("c", "c", ""),
        ("d", "cd", " and 1 more"),
        ("abefg", "abcde", " and 6 more"),
    ):
        for name in changed:
            changed_in_place(files[name])
        command = " ".join(f"r/{name}.npy" for name in wrong)
        with pytest.raises(UserError, match=f"^r/{wrong[0]}.npy{more}: .*`snakemake {command}`"):
            integrity.refuse_changed([Path("r/manifest.json")])


def test_what_inputs_should_be_is_gathered_from_records_and_manifests():
    """Records of all jobs of an input's folder; its other files have no entry."""
    table, rows = made("reports/t/a.csv", "1"), made("reports/t/b.csv", "2")
    recorded("reports/t/provenance.json", "reports/t/a.csv")
    recorded("reports/t/other.provenance.json", "reports/t/b.csv")
    plain = made("reports/t/c.txt", "no job made it")
    image = made("p/images.npy", "pixels", "p/manifest.json", device="cpu")
    Path("p/empty.manifest.json").write_text("{}")
    inputs = [
        table,
        plain,
        Path("p/manifest.json"),
        Path("p/empty.manifest.json"),
        Path("nowhere/manifest.json"),
    ]
    assert integrity.claims(inputs) == {table: {sha256(table)}, image: {sha256(image)}}
    assert integrity.claims([rows, image]) == {rows: {sha256(rows)}}, (
        "the image's manifest was not asked"
    )
    Path("reports/t/provenance.json").write_text("{")
    assert integrity.claims([table]) == {}


def test_a_manifest_lists_its_files_beside_it_and_those_of_its_datasets():
    def digest(name):
        return hashlib.sha256(name.encode()).hexdigest()

    made("p/a/images.npy", "a", "p/a/manifest.json")
    made("p/b/images.npy", "b", "p/b/manifest.json")
    datasets = {
        name: {"manifest": f"p/{name}/manifest.json", "sha256": digest(name)}
        for name in ("a", "b", "gone")
    }
    rows = made("s/rows.parquet", "rows")
    facts = {"files": {"rows.parquet": sha256(rows)}, "datasets": datasets}
    Path("s/manifest.json").write_text(json.dumps(facts))
    assert integrity.files_of(Path("s/manifest.json")) == {rows: sha256(rows)}, (
        "these datasets are another's business"
    )
    Path("s/manifest.json").write_text(json.dumps({**facts, "order": ["a", "b", "gone"]}))
    assert integrity.files_of(Path("s/manifest.json")) == {
        rows: sha256(rows),
        **{Path(f"p/{name}/manifest.json"): digest(name) for name in ("a", "b", "gone")},
        **{
            Path(f"p/{name}/images.npy"): sha256(Path(f"p/{name}/images.npy"))
            for name in ("a", "b")
        },
    }


def test_hashes_are_those_of_hashlib_and_missing_files_have_none(monkeypatch):
    monkeypatch.setattr("rib.base.files.CHUNK", 4)
    one, other = made("a.bin", "0123456789"), made("b.bin", "")
    Path("link.bin").symlink_to(one)
    Path("dangling.bin").symlink_to("nowhere")
    Path("folder").mkdir()
    files = [
        one,
        other,
        Path("link.bin"),
        Path("dangling.bin"),
        Path("gone.bin"),
        Path("folder"),
        one,
    ]
    digest = hashlib.sha256(b"0123456789").hexdigest()
    empty = hashlib.sha256(b"").hexdigest()
    assert list(hashing.hashes(iter(files), "hashing").items()) == list(
        zip(files[:6], (digest, empty, digest, None, None, None), strict=True)
    )
    counted = []
    assert hashing.sha256(one, counted.append) == digest and counted == [4, 4, 2]


def test_progress_counts_every_byte(progress):
    files = [made("a.bin", "0123456789"), made("b.bin", "012"), Path("gone.bin")]
    hashing.hashes(files, "looking")
    assert progress() == [("looking", 13, 13, "B")]


def test_what_is_remembered_is_of_one_path_size_and_time(big):
    """Of another big file of the same size there is another note."""
    other = made("other.npy", "other pixel")
    assert other.stat().st_size == big.stat().st_size
    assert hashing.remembered_hash(other, lambda number: None) == sha256(other)
    notes = [json.loads(note.read_text()) for note in sorted(hashing.MEMORY.iterdir())]
    assert {note["path"]: note["sha256"] for note in notes} == {
        str(path): sha256(path) for path in (big, other)
    }
    for note in notes:
        stat = Path(note["path"]).stat()
        assert note["signature"] == {
            **{"size": stat.st_size, "modified": stat.st_mtime_ns},
            **{"changed": stat.st_ctime_ns, "inode": stat.st_ino},
        }
    assert not list(hashing.MEMORY.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("part", ["size", "modified", "changed", "inode"])
def test_a_note_of_other_facts_is_not_believed(big, part):
    (note,) = hashing.MEMORY.iterdir()
    known = json.loads(note.read_text())
    note.write_text(json.dumps({**known, "sha256": "believed"}))
    assert hashing.remembered_hash(big, lambda number: None) == "believed"
    known["signature"][part] += 1
    note.write_text(json.dumps({**known, "sha256": "believed"}))
    assert hashing.remembered_hash(big, lambda number: None) == sha256(big)
    assert json.loads(note.read_text())["sha256"] == sha256(big), "and is corrected"


@pytest.mark.parametrize("note", ['{"sha256": "believed"}', "{", "\xff", None], ids=str)
def test_a_note_that_says_nothing_is_no_hindrance(big, note):
    (path,) = hashing.MEMORY.iterdir()
    path.unlink() if note is None else path.write_text(note, encoding="latin1")
    assert hashing.remembered_hash(big, lambda number: None) == sha256(big)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(folder, monkeypatch):
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "SETTLED", -1.0)
    path, read = made("big.npy", "many pixels"), hashing.sha256

    def meanwhile(*arguments):
        found = read(*arguments)
        path.write_text("more pixels than there were")
        return found

    monkeypatch.setattr(hashing, "sha256", meanwhile)
    hashing.remembered_hash(path, lambda number: None)
    assert not hashing.MEMORY.exists()


@pytest.mark.parametrize(("settled", "remembered"), [(-1.0, True), (hashing.SETTLED, False)])
def test_only_a_file_that_has_settled_is_remembered(folder, monkeypatch, settled, remembered):
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "SETTLED", settled)
    path = made("big.npy", "many pixels")
    os.utime(path, (0, 0))  # the time of modification may say anything
    hashing.remembered_hash(path, lambda number: None)
    assert hashing.MEMORY.exists() == remembered


def test_what_a_job_has_hashed_is_not_hashed_by_the_next(folder, monkeypatch):
    """If it is so big that hashing takes longer than to wait until it has settled."""
    monkeypatch.setattr(hashing, "REMEMBERED", 1)
    monkeypatch.setattr(hashing, "HANDED_ON", 10)
    monkeypatch.setattr(hashing, "SETTLED", 0.05)
    written = {}
    for text in ("many pixels", "few"):
        staged = made(f"{text}.staged", text)
        written[text] = (hashing.signature(staged), sha256(staged))
        staged.rename(f"{text}.npy")
        hashing.hand_on(Path(f"{text}.npy"), written[text][1], written[text][0])
    read = []
    monkeypatch.setattr(hashing, "sha256", lambda path, _: read.append(path.name) or "read")
    found = [hashing.remembered_hash(Path(f"{text}.npy"), lambda _: None) for text in written]
    assert found == [written["many pixels"][1], "read"]
    assert read == ["few.npy"]


def test_a_file_that_changed_since_it_was_hashed_is_not_handed_on(folder, monkeypatch):
    monkeypatch.setattr(hashing, "HANDED_ON", 1)
    path = made("big.npy", "many pixels")
    signature, digest = hashing.signature(path), sha256(path)
    path.write_text("more pixels than there were")
    monkeypatch.setattr(hashing, "SETTLED", 0.01)
    hashing.hand_on(path, digest, signature)
    same_size = made("same.npy", "many pixels")
    signature, digest = hashing.signature(same_size), sha256(same_size)
    # while it waits until the file has settled
    monkeypatch.setattr(hashing.time, "sleep", lambda _: same_size.write_text("last pixels"))
    hashing.hand_on(same_size, digest, signature)
    assert not hashing.MEMORY.exists()


def test_a_job_that_can_note_no_hash_has_done_its_work(folder, monkeypatch):
    monkeypatch.setattr(hashing, "HANDED_ON", 1)
    monkeypatch.setattr(hashing, "SETTLED", 0.01)
    path = made("big.npy", "many pixels")
    in_place_of_a_folder = Path(hashing.MEMORY.parts[0])
    in_place_of_a_folder.write_text("not a folder")
    hashing.hand_on(path, sha256(path), hashing.signature(path))
    assert in_place_of_a_folder.read_text() == "not a folder"


def test_a_job_hands_on_the_hashes_of_its_outputs(inputs, monkeypatch):
    handed_on = []
    monkeypatch.setattr(
        "rib.jobs.job.hand_on", lambda path, digest, _: handed_on.append((str(path), digest))
    )
    with running() as out:
        for name in ("data", "state"):
            out[name].write_text("made")
    assert ("results/out.x", sha256(Path("results/out.x"))) in handed_on


def test_small_files_are_always_read(folder, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED", -1.0)
    monkeypatch.setattr(hashing, "REMEMBERED", 5)
    for text, remembered in (("1234", False), ("12345", True)):
        hashing.remembered_hash(made(f"{text}.npy", text), lambda number: None)
        assert hashing.MEMORY.exists() == remembered


def test_a_job_reads_a_big_input_once(big, monkeypatch):
    Path("manifest.json").write_text(json.dumps({"files": {"big.npy": sha256(big)}}))
    monkeypatch.setattr(hashing, "sha256", lambda *_: pytest.fail("read again"))
    integrity.refuse_changed([Path("manifest.json")])
    assert hashing.hashes([big], "looking", remember=True) == {big: sha256(big)}
    assert hashing.MEMORY.parts[0] == "work", "which is nobody's result"
