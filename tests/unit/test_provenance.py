import json
import os
from pathlib import Path

import pytest

from rib import provenance
from rib.io import UserError, sha256


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(folder, name="a", text="made", seconds=1.0):
    """A finished job: an output and its record beside it."""
    place = folder / f"results/{name}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "out.txt").write_text(text)
    output = f"results/{name}/out.txt"
    record = {"cfg": {"b": 1, "a": [2]}, "seconds": seconds, "outputs": {output: sha256(place / "out.txt")}}
    (place / "provenance.json").write_text(json.dumps(record))
    return f"results/{name}/provenance.json", record


def nothing_known(path):
    return False


def test_gathered_records_are_sorted_and_come_back_as_they_were(folder):
    made = dict(job(folder, name) for name in ("b", "a"))
    assert provenance.gather([Path("results/b"), Path("results/a")]) == 2
    loaded = provenance.load()
    assert list(loaded) == ["results/a/provenance.json", "results/b/provenance.json"]
    assert loaded == {path: [record] for path, record in made.items()}
    assert list(loaded["results/a/provenance.json"][0]["cfg"]) == ["b", "a"]
    before = provenance.FILE.read_bytes()
    provenance.save(loaded)
    assert provenance.FILE.read_bytes() == before


def test_records_of_places_that_were_not_pulled_are_kept_and_those_of_deleted_jobs_dropped(folder):
    for name in ("here/kept", "here/deleted", "elsewhere/job"):
        job(folder, name)
    here = Path("results")
    provenance.gather([here / "here", here / "elsewhere"])
    for path in (folder / "results/here/deleted").iterdir():
        path.unlink()
    for path in sorted((folder / "results/elsewhere").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "results/elsewhere").rmdir()
    provenance.gather([here / "here"])
    assert list(provenance.load()) == ["results/elsewhere/job/provenance.json", "results/here/kept/provenance.json"]


def test_outputs_that_agree_are_matched_and_known_ones_not_looked_at(folder):
    path, record = job(folder)
    assert provenance.match({path: [record]}, nothing_known) == {path: record}
    assert provenance.match({path: [record]}, lambda file: True) == {}


def test_outputs_that_are_not_all_there_are_left_alone(folder):
    path, record = job(folder)
    (folder / "results/a/out.txt").unlink()
    assert provenance.match({path: [record]}, nothing_known) == {}


def test_records_of_two_merged_branches_are_kept_and_the_one_beside_the_outputs_taken(folder):
    path, record = job(folder)
    other = {**record, "outputs": {"results/a/out.txt": "0" * 64}}
    provenance.save({path: [other, record]})
    assert provenance.match(provenance.load(), nothing_known) == {path: record}


def test_newer_work_than_the_gathered_record_is_matched_by_its_own(folder):
    path, old = job(folder)
    _, new = job(folder, text="made anew")
    assert provenance.match({path: [old]}, nothing_known) == {path: new}


def test_the_same_bytes_made_again_have_the_newer_record(folder):
    path, old = job(folder)
    _, new = job(folder, seconds=2.0)
    assert provenance.match({path: [old]}, nothing_known) == {path: new}


def test_a_damaged_record_is_named(folder):
    path, record = job(folder)
    (folder / path).write_text("{")
    with pytest.raises(UserError, match=r"results/a/provenance\.json: not what its provenance record says"):
        provenance.match({path: [record]}, nothing_known)


def test_outputs_that_agree_with_no_record_are_named(folder):
    path, record = job(folder)
    (folder / "results/a/out.txt").write_text("changed")
    with pytest.raises(UserError, match=r"results/a/out\.txt: not what its .* `dvc checkout --force`"):
        provenance.match({path: [record]}, nothing_known)


def test_gathering_refuses_what_was_changed_after_its_record(folder):
    path, _ = job(folder)
    output = folder / "results/a/out.txt"
    output.write_text("changed")
    later = Path(path).stat().st_mtime + 5
    os.utime(output, (later, later))
    with pytest.raises(UserError, match=r"results/a/out\.txt"):
        provenance.gather([Path("results/a")])
    assert not provenance.FILE.exists()


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "[1]", '{"cfg": 1}', "{"])
def test_a_line_that_is_no_record_is_named(folder, line):
    provenance.FILE.write_text('{"path": "x", "outputs": {}}\n' + line + "\n")
    with pytest.raises(UserError, match=r"provenance\.jsonl, line 2 is no record"):
        provenance.load()
