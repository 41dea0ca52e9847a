import json
import os
import shutil
from pathlib import Path

import pytest

from rib import provenance
from rib.io import UserError, sha256


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(folder, name="a", text="made", seconds=1.0, ended="2026-01-01T10:00:00.000+00:00", inputs=None):
    """A finished job: an output and its record beside it."""
    place = folder / f"results/{name}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "out.txt").write_text(text)
    output = f"results/{name}/out.txt"
    record = {
        **{"rule": "r", "log": f"logs/{name}.log", "cfg": {"b": 1, "a": [2]}, "inputs": inputs or {}},
        **{"seconds": seconds, "ended": ended, "outputs": {output: sha256(place / "out.txt")}},
    }
    (place / "provenance.json").write_text(json.dumps(record))
    return f"results/{name}/provenance.json", record


def never(path):
    return False


def matched(records, known=never, unfinished=never):
    return provenance.match(records, known, unfinished)


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


def test_records_of_places_that_were_not_pulled_are_kept(folder):
    for name in ("here/job", "elsewhere/job"):
        job(folder, name)
    provenance.gather([Path("results/here"), Path("results/elsewhere")])
    shutil.rmtree(folder / "results/elsewhere")
    job(folder, "here/new")
    assert provenance.gather([Path("results/here")]) == 3
    assert list(provenance.load()) == [
        "results/elsewhere/job/provenance.json",
        "results/here/job/provenance.json",
        "results/here/new/provenance.json",
    ]


def test_results_that_others_shared_are_not_taken_away(folder):
    for name in ("here/mine", "here/theirs"):
        job(folder, name)
    provenance.gather([Path("results/here")])
    shutil.rmtree(folder / "results/here/theirs")
    before = provenance.FILE.read_bytes()
    with pytest.raises(UserError, match=r"1 results that are not here.*results/here/theirs.*`dvc pull` first"):
        provenance.gather([Path("results/here")])
    assert provenance.FILE.read_bytes() == before


def test_older_results_do_not_replace_newer_ones_that_others_shared(folder):
    job(folder, text="newer", ended="2026-02-02T10:00:00.000+00:00")
    provenance.gather([Path("results/a")])
    job(folder, text="older", ended="2026-02-01T10:00:00.000+00:00")
    with pytest.raises(UserError, match="newer than those here"):
        provenance.gather([Path("results/a")])
    job(folder, text="newest", ended="2026-02-03T10:00:00.000+00:00")
    assert provenance.gather([Path("results/a")]) == 1


def test_records_of_another_form_are_left_out_with_a_word(folder, caplog):
    path, _ = job(folder)
    (folder / path).write_text('{"outputs": {"out.txt": "0"}}')
    assert provenance.gather([Path("results/a")]) == 0 and "left out" in caplog.text


def test_outputs_that_agree_are_matched_and_known_ones_not_looked_at(folder):
    path, record = job(folder)
    assert matched({path: [record]}) == {path: record}
    assert matched({path: [record]}, known=lambda file: True) == {}


def test_outputs_that_are_not_all_there_are_left_alone(folder):
    path, record = job(folder)
    (folder / "results/a/out.txt").unlink()
    assert matched({path: [record]}) == {}


def test_records_of_two_merged_branches_are_kept_and_the_one_beside_the_outputs_taken(folder):
    path, record = job(folder)
    other = {**record, "outputs": {"results/a/out.txt": "0" * 64}}
    provenance.save({path: [other, record]})
    assert matched(provenance.load()) == {path: record}


def test_newer_work_than_the_gathered_record_is_matched_by_its_own(folder):
    path, old = job(folder)
    _, new = job(folder, text="made anew")
    assert matched({path: [old]}) == {path: new}


def test_the_same_bytes_made_again_have_the_newer_record(folder):
    path, old = job(folder)
    _, new = job(folder, seconds=2.0)
    assert matched({path: [old]}) == {path: new}


def test_a_damaged_record_is_named(folder):
    path, record = job(folder)
    (folder / path).write_text("{")
    with pytest.raises(UserError, match=r"results/a/provenance\.json: not what its provenance record says"):
        matched({path: [record]})


def test_outputs_that_agree_with_no_record_are_named(folder):
    path, record = job(folder)
    (folder / "results/a/out.txt").write_text("changed")
    with pytest.raises(
        UserError, match=r"results/a/out\.txt: not what its .* `dvc pull --force results/a/out\.txt results/a/prov"
    ):
        matched({path: [record]})


def test_what_a_killed_job_left_is_left_alone(folder):
    path, record = job(folder)
    (folder / "results/a/out.txt").write_text("half")
    assert matched({path: [record]}, unfinished=lambda file: file.endswith("out.txt")) == {}


def test_a_record_copied_from_another_job_is_refused(folder):
    _, record = job(folder, "a")
    shutil.copytree(folder / "results/a", folder / "results/b")
    copied = "results/b/provenance.json"
    theirs = {**record, "outputs": {"results/b/out.txt": record["outputs"]["results/a/out.txt"]}}
    with pytest.raises(UserError, match=r"results/b/provenance\.json"):
        matched({copied: [theirs]})


def test_a_job_whose_input_was_made_by_someone_else_is_known(folder):
    made, record = job(folder, "a")
    fits, _ = job(folder, "b", inputs=record["outputs"])
    other, _ = job(folder, "c", inputs={"results/a/out.txt": "0" * 64, "config.yaml": "1"})
    assert provenance.made_from_others([made, fits, other]) == {other}


def test_gathering_refuses_what_was_changed_after_its_record(folder):
    path, _ = job(folder)
    output = folder / "results/a/out.txt"
    output.write_text("changed")
    later = Path(path).stat().st_mtime + 5
    os.utime(output, (later, later))
    with pytest.raises(UserError, match=r"results/a/out\.txt"):
        provenance.gather([Path("results/a")])
    assert not provenance.FILE.exists()


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "[1]", '{"path": "x"}', "{"])
def test_a_line_that_is_no_record_is_named(folder, line):
    path, record = job(Path())
    provenance.save({path: [record]})
    with open(provenance.FILE, "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"provenance\.jsonl, line 2 is no record"):
        provenance.load()
