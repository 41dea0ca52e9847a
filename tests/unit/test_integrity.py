"""What jobs look at before they build on their inputs."""

import json
import os
from pathlib import Path

import pytest

from rib import integrity
from rib.io import UserError, sha256
from rib.job import job


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(path: str, text: str, manifest: str | None = None, **facts) -> Path:
    """A file, and its manifest where one is named."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    if manifest:
        Path(manifest).write_text(json.dumps({"files": {Path(path).name: sha256(Path(path))}, **facts}))
    return Path(path)


def recorded(record: str, *files: str) -> None:
    keys = {"rule": "r", "log": "l", "cfg": {}, "inputs": {}, "seconds": 1.0, "ended": "2026-01-01T00:00:00+00:00"}
    Path(record).write_text(json.dumps({**keys, "outputs": {file: sha256(Path(file)) for file in files}}))


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
    with pytest.raises(UserError, match=rf"^{file}: not what was made.*`dvc pull --force {file}`.*or delete it"):
        integrity.refuse_changed([Path(manifest)])


def test_datasets_behind_a_suite_are_looked_at():
    image = made("prepare/a/images.npy", "pixels", "prepare/a/manifest.json")
    listed = {"manifest": "prepare/a/manifest.json", "sha256": sha256(Path("prepare/a/manifest.json"))}
    Path("suite").mkdir()
    Path("suite/manifest.json").write_text(json.dumps({"datasets": {"a": listed}, "order": ["a"]}))
    integrity.refuse_changed([Path("suite/manifest.json")])
    changed_in_place(image)
    with pytest.raises(UserError, match="prepare/a/images.npy"):
        integrity.refuse_changed([Path("suite/manifest.json")])
    changed_in_place(image)
    changed_in_place(Path("prepare/a/manifest.json"))
    with pytest.raises(UserError, match=r"prepare/a/manifest\.json"):
        integrity.refuse_changed([Path("suite/manifest.json")])


def test_a_table_that_was_edited_is_no_input():
    made("tables/mri.csv", "1.0")
    recorded("tables/provenance.json", "tables/mri.csv")
    integrity.refuse_changed([Path("tables/mri.csv")])
    made("tables/mri.csv", "9.0")
    with pytest.raises(UserError, match=r"tables/mri\.csv"):
        integrity.refuse_changed([Path("tables/mri.csv")])


def test_files_that_nothing_vouches_for_and_listed_ones_that_are_not_here_are_let_pass():
    made("captions.rst", "text")
    made("r/checkpoint.safetensors", "bytes", "r/manifest.json").unlink()
    integrity.refuse_changed([Path("captions.rst"), Path("r/manifest.json")])


def test_a_job_builds_nothing_on_a_damaged_input(capfd):
    changed_in_place(made("in/images.npy", "pixels", "in/manifest.json"))
    what = {"stage": "s", "rule": "r", "name": "n", "cfg": {}, "log_file": "log"}
    inputs, outputs = {"manifest": "in/manifest.json", "images": "in/images.npy"}, {"data": "out.x"}
    with pytest.raises(SystemExit), job(**what, inputs=inputs, outputs=outputs) as out:
        out["data"].write_text("built")
    assert "in/images.npy: not what was made" in capfd.readouterr().err and not Path("out.x").exists()


@pytest.fixture
def big(folder, monkeypatch):
    """A file that counts as big and has lain there for long."""
    monkeypatch.setattr(integrity, "REMEMBERED", 1)
    monkeypatch.setattr(integrity, "SETTLED", -1.0)
    path = made("big.npy", "many pixels")
    integrity.remembered_hash(path, lambda number: None)
    return path


def test_a_big_file_is_read_once(big, monkeypatch):
    def unread(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(integrity, "read_hash", unread)
    counted = []
    assert integrity.remembered_hash(big, counted.append) == sha256(big) and counted == [big.stat().st_size]


def test_a_big_file_that_was_changed_is_read_again_whatever_its_time_says(big):
    changed_in_place(big)
    assert integrity.remembered_hash(big, lambda number: None) == sha256(big)


def test_what_was_just_written_is_not_remembered(folder, monkeypatch):
    monkeypatch.setattr(integrity, "REMEMBERED", 1)
    integrity.remembered_hash(made("new.npy", "pixels"), lambda number: None)
    assert not integrity.MEMORY.exists()


def test_a_note_that_is_damaged_is_no_hindrance(big):
    (note,) = integrity.MEMORY.iterdir()
    note.write_text("{")
    assert integrity.remembered_hash(big, lambda number: None) == sha256(big)
