import os
import shutil
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.records import provenance
from tiny.records import make


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def never(path):
    return False


def matched(records, known=never, unfinished=never):
    return provenance.match(records, known, unfinished)


def test_gathered_records_are_sorted_and_come_back_as_they_were(folder):
    made = dict(make(name) for name in ("b", "a"))
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
        make(name)
    provenance.gather([Path("results/here"), Path("results/elsewhere")])
    shutil.rmtree(folder / "results/elsewhere")
    make("here/new")
    assert provenance.gather([Path("results/here")]) == 3
    assert list(provenance.load()) == [
        "results/elsewhere/job/provenance.json",
        "results/here/job/provenance.json",
        "results/here/new/provenance.json",
    ]


def test_results_that_others_shared_are_not_lost(folder):
    for name in ("here/mine", "here/theirs"):
        make(name)
    provenance.gather([Path("results/here")])
    shutil.rmtree(folder / "results/here/theirs")
    before = provenance.FILE.read_bytes()
    with pytest.raises(UserError, match="^provenance.jsonl .*results/here/theirs"):
        provenance.gather([Path("results/here")])
    assert provenance.FILE.read_bytes() == before


@pytest.mark.parametrize("unit", ["results/a", "results/a/provenance.json"])
def test_older_results_do_not_replace_newer_ones_that_others_shared(folder, unit):
    """Whether a folder or a file is tracked."""
    path, newer = make(text="newer", ended="2026-02-02T10:00:00.000+00:00")
    provenance.save({path: [newer], "results/elsewhere/provenance.json": [newer]})
    make(text="older", ended="2026-02-01T10:00:00.000+00:00")
    with pytest.raises(UserError, match="^provenance.jsonl .*results/a/provenance.json"):
        provenance.gather([Path(unit)])
    assert provenance.load()[path] == [newer]
    make(text="newest", ended="2026-02-03T10:00:00.000+00:00")
    assert provenance.gather([Path(unit)]) == 2


def test_a_job_without_all_its_outputs_or_with_a_record_of_another_form_is_left_out(folder, caplog):
    for name in ("a", "b", "c"):
        make(name)
    (folder / "results/b/out.txt").unlink()
    (folder / "results/c/provenance.json").write_text('{"outputs": {"out.txt": "0"}}')
    assert provenance.gather([Path("results")]) == 1
    assert list(provenance.load()) == ["results/a/provenance.json"]
    assert (
        all(f"results/{name}/provenance.json" in caplog.text for name in "bc")
        and "results/a/" not in caplog.text
    )


def test_outputs_that_agree_are_matched_and_known_ones_are_not_read(folder):
    path, record = make()
    assert matched({path: [record]}) == {path: record}
    assert matched({path: [record]}, known=lambda file: True) == {}


def test_records_of_two_merged_branches_are_kept_and_the_one_beside_the_outputs_taken(folder):
    path, record = make()
    other = {**record, "outputs": {"results/a/out.txt": "0" * 64}}
    provenance.save({path: [other, record]})
    assert matched(provenance.load()) == {path: record}


@pytest.mark.parametrize("again", [{"text": "made again"}, {"seconds": 2.0}])
def test_a_job_that_was_run_again_is_matched_by_its_own_record(folder, again):
    """Whether its bytes are the same or not."""
    path, old = make()
    _, new = make(**again)
    assert matched({path: [old]}) == {path: new}


def link_to_nothing(output):
    """As where DVC's cache lost a file: it is there by name."""
    output.unlink()
    output.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("provenance.json", lambda path: path.write_text("{")),
        ("out.txt", lambda path: path.write_text("changed")),
        ("out.txt", link_to_nothing),
    ],
)
def test_a_file_that_agrees_with_no_record_is_named_with_a_way_to_get_it_back(folder, file, damage):
    path, record = make()
    damage(folder / f"results/a/{file}")
    both = " ".join(dict.fromkeys((f"results/a/{file}", path)))
    with pytest.raises(UserError, match=f"^results/a/{file}: .*`snakemake {both}`"):
        matched({path: [record]})


def test_what_a_killed_job_left_is_not_compared(folder):
    path, record = make()
    (folder / "results/a/out.txt").write_text("half")
    assert matched({path: [record]}, unfinished=lambda file: file.endswith("out.txt")) == {}


def test_gathering_refuses_what_was_changed_after_its_record(folder):
    path, _ = make()
    output = folder / "results/a/out.txt"
    output.write_text("changed")
    later = Path(path).stat().st_mtime + 5
    os.utime(output, (later, later))
    with pytest.raises(UserError, match=r"results/a/out\.txt"):
        provenance.gather([Path("results/a")])
    assert not provenance.FILE.exists()


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "[1]", '{"path": "x"}', "{"])
def test_a_line_that_is_no_record_is_named(folder, line):
    path, record = make()
    provenance.save({path: [record, record]})
    with open(provenance.FILE, "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match="^provenance.jsonl, line 3 "):
        provenance.load()
    provenance.FILE.unlink()
    assert provenance.load() == {}


def test_one_input_of_many_that_was_made_again_is_enough_and_inputs_that_no_job_made_say_nothing(
    folder,
):
    made, right = [], {"config.yaml": "1" * 64}  # which has no record
    for name in ("a", "b", "c"):
        path, record = make(name, text=f"made {name}")
        made.append(path)
        right |= record["outputs"]
    fits = [make("fits", inputs=right)[0], make("alone", inputs={"config.yaml": "2" * 64})[0]]
    others = {
        make(f"other-{name}", inputs={**right, f"results/{name}/out.txt": "0" * 64})[0]
        for name in ("a", "b", "c")
    }
    assert (
        provenance.made_from_others([*made, *fits, *sorted(others), "results/gone/provenance.json"])
        == others
    )
    assert provenance.made_from_others([*fits, *others]) == set(), (
        "whose inputs' records were not asked for"
    )


def test_of_many_jobs_only_the_copied_records_are_refused_and_those_that_agree_matched(folder):
    records = dict(make(name, text=name) for name in ("a", "c"))
    shutil.copytree(folder / "results/a", folder / "results/b")
    theirs = {**records["results/a/provenance.json"], "outputs": {"results/b/out.txt": "0" * 64}}
    several = {path: [record] for path, record in records.items()}
    assert matched(several) == records
    with pytest.raises(UserError, match=r"^results/b/provenance\.json: "):
        matched({**several, "results/b/provenance.json": [theirs]})
    # that its job was killed pardons it, and nobody else
    killed = {**several, "results/b/provenance.json": [theirs]}
    assert matched(killed, unfinished=lambda file: file == "results/b/provenance.json") == records
    (folder / "results/c/out.txt").write_text("changed")
    with pytest.raises(UserError, match=r"^results/c/out\.txt: "):
        matched(killed, unfinished=lambda file: file == "results/b/provenance.json")


def test_the_first_file_that_differs_is_named_and_the_others_counted(folder):
    records = {path: [record] for path, record in (make(name) for name in ("a", "b", "c"))}
    for name, more in (("b", ""), ("a", " and 1 more")):
        (folder / f"results/{name}/out.txt").write_text("changed")
        with pytest.raises(UserError, match=f"^results/{name}/out.txt{more}: "):
            matched(records)


def test_a_job_is_known_only_if_its_record_and_every_output_are(folder):
    path, record = make()
    (folder / "results/a/more.txt").write_text("more")
    record["outputs"]["results/a/more.txt"] = sha256(folder / "results/a/more.txt")
    provenance.write(folder / path, record)
    for file in (path, *record["outputs"]):
        assert matched({path: [record]}, known=lambda asked, left=file: asked != left) == {
            path: record
        }
    assert matched({path: [record]}, known=lambda asked: True) == {}
    for file in (path, *record["outputs"]):
        (folder / file).rename(folder / "aside")
        assert matched({path: [record]}) == {}, file
        (folder / "aside").rename(folder / file)


@pytest.mark.parametrize("key", ["rule", "log", "cfg", "inputs", "outputs", "seconds", "ended"])
def test_a_record_that_lacks_a_part_is_none(folder, key):
    path, record = make()
    assert provenance.read(Path(path)) == record
    del record[key]
    provenance.write(folder / path, record)
    assert provenance.read(Path(path)) is None
    provenance.save({path: [record]})
    with pytest.raises(UserError, match="^provenance.jsonl, line 1 "):
        provenance.load()


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"null", b"\xff", None])
def test_a_record_that_is_damaged_or_missing_is_none(folder, damage):
    path, _ = make()
    if damage is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(damage)
    assert provenance.read(folder / path) is None


def test_records_are_found_below_folders_and_by_their_own_path(folder):
    for name in ("b/one", "a"):
        make(name)
    group = folder / "results/b/two.provenance.json"
    group.write_text("{}")
    (folder / "results/b/provenance.json.dvc").write_text("")
    everything = [
        folder / "results/a/provenance.json",
        folder / "results/b/one/provenance.json",
        group,
    ]
    assert list(provenance.below([folder / "results"])) == everything
    assert list(provenance.below([folder / "results/b", folder / "results/a"])) == everything
    assert list(provenance.below([group, folder / "results/a/out.txt", folder / "nowhere"])) == [
        group
    ]


def test_gathering_takes_files_one_by_one_and_keeps_what_only_begins_like_them(folder):
    """`results/a` is no part of `results/ab`, and shares its first letters."""
    for name in ("a", "ab"):
        make(name)
    assert provenance.gather([Path("results/ab")]) == 1
    assert provenance.gather([Path("results/a")]) == 2
    shutil.rmtree(folder / "results/ab")
    assert provenance.gather([Path("results/a")]) == 2 and len(provenance.load()) == 2
    one, other = folder / "results/one.provenance.json", folder / "results/other.provenance.json"
    record = {**provenance.read(Path("results/a/provenance.json")), "outputs": {}}
    for file in (one, other):
        provenance.write(file, record)
    assert provenance.gather([Path("results/one.provenance.json")]) == 3
    assert "results/other.provenance.json" not in provenance.load()


def test_files_that_are_older_than_their_record_are_not_read_again(folder, monkeypatch):
    path, _ = make()
    monkeypatch.setattr(
        "rib.records.hashing.sha256", lambda file, count: pytest.fail(f"{file} was read")
    )
    recorded = (folder / path).stat().st_mtime
    os.utime(folder / "results/a/out.txt", (recorded, recorded))
    assert provenance.gather([Path("results/a")]) == 1


def test_one_of_two_shared_lines_is_enough_and_the_newest_of_them_counts(folder):
    """Where branches that made the same were merged, going back to either is no loss.

    Going back to what is older than both is one.
    """
    path, mine = make(ended="2026-02-01T10:00:00.000+00:00")
    newer = {**mine, "ended": "2026-02-03T10:00:00.000+00:00", "seconds": 9.0}
    older = {**mine, "ended": "2026-01-01T10:00:00.000+00:00", "seconds": 8.0}
    for lines in ([mine, newer], [older, older], [{**older, "seconds": 7.0}]):
        provenance.save({path: lines})
        assert provenance.gather([Path("results/a")]) == 1
    for lines in ([older, newer], [newer, older], [{**mine, "seconds": 7.0}]):
        provenance.save({path: lines})
        with pytest.raises(UserError, match="^provenance.jsonl .*results/a/"):
            provenance.gather([Path("results/a")])
        assert provenance.load() == {path: lines}


def test_a_link_whose_bytes_are_elsewhere_is_an_output_that_is_here(folder):
    """As DVC leaves it where its cache was moved; nobody changed it since."""
    path, record = make()
    output = folder / "results/a/out.txt"
    output.unlink()
    output.symlink_to(folder / "moved")
    recorded = (folder / path).stat().st_mtime - 5
    os.utime(output, (recorded, recorded), follow_symlinks=False)
    assert provenance.gather([Path("results/a")]) == 1 and provenance.load() == {path: [record]}
