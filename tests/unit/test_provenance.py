"""Records of jobs are gathered for git, and matched with the files of jobs."""

import os
import shutil
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.records import provenance
from tiny.projects.records import FACTS, make, output

# Path of the record of a job named a.
RECORD_OF_A = "results/a/provenance.json"
OTHER_HASH = "0" * 64


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of a project, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def never(path):
    """Whether a path is known, or its job was killed: it is not."""
    return False


def always(path):
    """Whether a path is known: it is."""
    return True


def match(records, is_known=never, is_unfinished=never):
    """Own records that match the files of jobs, where usually none is known and no job killed."""
    return provenance.match(records, is_known, is_unfinished)


def one_of_each(records):
    """Records by path as they are gathered: one in a list for each job."""
    return {path: [record] for path, record in records.items()}


def make_jobs(*names):
    """Run jobs, whose outputs tell their names; gives their records by path."""
    return dict(make(name, text=name) for name in names)


def test_gathered_records_are_sorted_and_come_back_as_they_were(folder):
    # given
    records = make_jobs("b", "a")
    # when
    number_of_records = provenance.gather([Path("results/b"), Path("results/a")])
    # then
    assert number_of_records == 2
    gathered = provenance.load()
    assert list(gathered) == [RECORD_OF_A, "results/b/provenance.json"]
    assert gathered == one_of_each(records)
    (record_of_a,) = gathered[RECORD_OF_A]
    assert list(record_of_a["cfg"]) == ["b", "a"], "settings keep their order"
    # and saving them again changes nothing
    text_before = provenance.FILE.read_bytes()
    provenance.save(gathered)
    assert provenance.FILE.read_bytes() == text_before


def test_records_of_places_that_were_not_pulled_are_kept(folder):
    # given
    make_jobs("here/job", "elsewhere/job")
    provenance.gather([Path("results/here"), Path("results/elsewhere")])
    shutil.rmtree(folder / "results/elsewhere")
    make_jobs("here/new")
    # when
    number_of_records = provenance.gather([Path("results/here")])
    # then
    assert number_of_records == 3
    assert list(provenance.load()) == [
        "results/elsewhere/job/provenance.json",
        "results/here/job/provenance.json",
        "results/here/new/provenance.json",
    ]


def test_results_that_others_shared_are_not_lost(folder):
    # given
    make_jobs("here/mine", "here/theirs")
    provenance.gather([Path("results/here")])
    shutil.rmtree(folder / "results/here/theirs")
    text_before = provenance.FILE.read_bytes()
    # then
    with pytest.raises(UserError, match="^provenance.jsonl .*results/here/theirs"):
        provenance.gather([Path("results/here")])
    assert provenance.FILE.read_bytes() == text_before


def test_older_results_do_not_replace_newer_ones_that_others_shared(folder):
    # given
    path, newer = make(text="newer", ended="2026-02-02T10:00:00.000+00:00")
    provenance.save({path: [newer], "results/elsewhere/provenance.json": [newer]})
    # then what is older is refused
    make(text="older", ended="2026-02-01T10:00:00.000+00:00")
    with pytest.raises(UserError, match="^provenance.jsonl .*results/a/provenance.json"):
        provenance.gather([Path("results/a")])
    assert provenance.load()[path] == [newer]
    # and what is newer is taken
    _, newest = make(text="newest", ended="2026-02-03T10:00:00.000+00:00")
    number_of_records = provenance.gather([Path("results/a")])
    assert number_of_records == 2
    assert provenance.load()[path] == [newest]


def test_a_job_without_all_its_outputs_or_with_a_record_of_another_form_is_left_out(folder, caplog):
    # given
    make_jobs("a", "b", "c")
    (folder / "results/b/out.txt").unlink()
    (folder / "results/c/provenance.json").write_text('{"outputs": {"out.txt": "0"}}')
    # when
    number_of_records = provenance.gather([Path("results")])
    # then
    assert number_of_records == 1
    assert list(provenance.load()) == [RECORD_OF_A]
    assert "results/b/provenance.json" in caplog.text
    assert "results/c/provenance.json" in caplog.text
    assert "results/a/" not in caplog.text


def test_outputs_that_agree_are_matched_and_known_ones_are_not_read(folder):
    path, record = make()
    assert match({path: [record]}) == {path: record}
    (folder / "results/a/out.txt").write_text("nobody reads this")
    assert match({path: [record]}, is_known=always) == {}


def test_records_of_two_merged_branches_are_kept_and_the_one_beside_the_outputs_taken(folder):
    path, record = make()
    record_of_other_branch = {**record, "outputs": {"results/a/out.txt": OTHER_HASH}}
    records_of_branches = {path: [record_of_other_branch, record]}
    provenance.save(records_of_branches)
    gathered = provenance.load()
    assert gathered == records_of_branches
    assert match(gathered) == {path: record}


@pytest.mark.parametrize("again", [{"text": "made again"}, {"seconds": 2.0}])
def test_a_job_that_was_run_again_is_matched_by_its_own_record(folder, again):
    """Whether its bytes are the same or not."""
    path, old_record = make()
    _, new_record = make(**again)
    assert new_record != old_record
    assert match({path: [old_record]}) == {path: new_record}


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
    # given
    path, record = make()
    wrong_file = f"results/a/{file}"
    damage(folder / wrong_file)
    # then the wrong file is to be made again, with its record
    files = path if wrong_file == path else f"{wrong_file} {path}"
    with pytest.raises(UserError, match=f"^{wrong_file}: .*`snakemake {files}`"):
        match({path: [record]})


def test_what_a_killed_job_left_is_not_compared(folder):
    path, record = make()
    (folder / "results/a/out.txt").write_text("half")

    def is_unfinished(file):
        return file == "results/a/out.txt"

    assert match({path: [record]}, is_unfinished=is_unfinished) == {}


@pytest.mark.parametrize(
    "line", ["<<<<<<< HEAD", "[1]", "[" * 100_000, "1" * 5000], ids=lambda line: line[:12]
)
def test_a_line_that_is_no_record_is_named(folder, line):
    # given two lines that are records, and another
    path, record = make()
    provenance.save({path: [record, record]})
    with open(provenance.FILE, "a") as file:
        file.write(line + "\n")
    # then
    with pytest.raises(UserError, match="^provenance.jsonl, line 3 "):
        provenance.load()


def test_one_input_of_many_that_was_made_again_is_enough_and_inputs_that_no_job_made_say_nothing(
    folder,
):
    # given three jobs, and a file that no job has made
    makers = make_jobs("a", "b", "c")
    right_inputs = {"config.yaml": "1" * 64}
    for record in makers.values():
        right_inputs |= record["outputs"]
    # and jobs whose inputs are these
    path_of_fitting, _ = make("fits", inputs=right_inputs)
    path_of_independent, _ = make("alone", inputs={"config.yaml": "2" * 64})
    agreeing = [path_of_fitting, path_of_independent]
    # and jobs of which one input is another
    disagreeing = set()
    for name in ("a", "b", "c"):
        inputs = {**right_inputs, f"results/{name}/out.txt": OTHER_HASH}
        path, _ = make(f"other-{name}", inputs=inputs)
        disagreeing.add(path)
    # then
    jobs = [*makers, *agreeing, *sorted(disagreeing), "results/gone/provenance.json"]
    assert provenance.made_from_others(jobs) == disagreeing
    without_makers = [*agreeing, *sorted(disagreeing)]
    assert provenance.made_from_others(without_makers) == set()


def test_of_many_jobs_only_the_copied_records_are_refused_and_those_that_agree_matched(folder):
    # given two jobs, and a copy of one of them in the place of a third
    records = make_jobs("a", "c")
    gathered = one_of_each(records)
    assert match(gathered) == records
    shutil.copytree(folder / "results/a", folder / "results/b")
    record_of_b = {**records[RECORD_OF_A], "outputs": {"results/b/out.txt": OTHER_HASH}}
    gathered_with_b = {**gathered, "results/b/provenance.json": [record_of_b]}
    # then the copy is refused
    with pytest.raises(UserError, match=r"^results/b/provenance\.json: "):
        match(gathered_with_b)

    def is_of_killed_job(file):
        return file == "results/b/provenance.json"

    # and that its job was killed pardons it, and nobody else
    assert match(gathered_with_b, is_unfinished=is_of_killed_job) == records
    (folder / "results/c/out.txt").write_text("changed")
    with pytest.raises(UserError, match=r"^results/c/out\.txt: "):
        match(gathered_with_b, is_unfinished=is_of_killed_job)


def test_the_first_file_that_differs_is_named_and_the_others_counted(folder):
    gathered = one_of_each(make_jobs("a", "b", "c"))
    (folder / "results/b/out.txt").write_text("changed")
    with pytest.raises(UserError, match="^results/b/out.txt: "):
        match(gathered)
    (folder / "results/a/out.txt").write_text("changed")
    with pytest.raises(UserError, match="^results/a/out.txt and 1 more: "):
        match(gathered)


def test_a_job_is_known_only_if_its_record_and_every_output_are(folder):
    # given a job with two outputs
    path, record = make()
    second_output = folder / "results/a/more.txt"
    second_output.write_text("more")
    record["outputs"]["results/a/more.txt"] = sha256(second_output)
    provenance.write(folder / path, record)
    gathered = {path: [record]}
    files = [path, "results/a/out.txt", "results/a/more.txt"]
    assert files == [path, *record["outputs"]]
    # then it is checked if one of its files is unknown
    for unknown_file in files:

        def is_known(file, unknown_file=unknown_file):
            return file != unknown_file

        assert match(gathered, is_known=is_known) == {path: record}
    assert match(gathered, is_known=always) == {}
    # and it is passed over if one of them is missing
    aside = folder / "aside"
    for missing_file in files:
        (folder / missing_file).rename(aside)
        assert match(gathered) == {}, missing_file
        aside.rename(folder / missing_file)
    assert match(gathered) == {path: record}


@pytest.mark.parametrize("key", ["rule", "log", "cfg", "inputs", "outputs", "seconds", "ended"])
def test_a_record_that_lacks_a_part_is_none(folder, key):
    # given
    path, record = make()
    assert provenance.read(Path(path)) == record
    # when
    del record[key]
    provenance.write(folder / path, record)
    # then
    assert provenance.read(Path(path)) is None
    # and a gathered one is refused
    provenance.save({path: [record]})
    with pytest.raises(UserError, match="^provenance.jsonl, line 1 "):
        provenance.load()


@pytest.mark.parametrize("damage", [b"{", b"[1]", None])
def test_a_record_that_is_damaged_or_missing_is_none(folder, damage):
    path, _ = make()
    assert provenance.read(folder / path) is not None
    if damage is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(damage)
    assert provenance.read(folder / path) is None


def test_gathering_takes_files_one_by_one_and_keeps_what_only_begins_like_them(folder):
    """`results/a` is no part of `results/ab`, and shares its first letters."""
    # given two folders
    make_jobs("a", "ab")
    # then one after the other is gathered, and kept
    assert provenance.gather([Path("results/ab")]) == 1
    assert provenance.gather([Path("results/a")]) == 2
    shutil.rmtree(folder / "results/ab")
    assert provenance.gather([Path("results/a")]) == 2
    assert list(provenance.load()) == [RECORD_OF_A, "results/ab/provenance.json"]
    # and of two files in a folder, one is gathered
    record_without_outputs = {**provenance.read(Path(RECORD_OF_A)), "outputs": {}}
    for name in ("one", "other"):
        path = folder / f"results/{name}.provenance.json"
        provenance.write(path, record_without_outputs)
    assert provenance.gather([Path("results/one.provenance.json")]) == 3
    gathered = provenance.load()
    assert "results/one.provenance.json" in gathered
    assert "results/other.provenance.json" not in gathered


def test_files_that_are_older_than_their_record_are_not_read_again(folder, monkeypatch):
    # given
    path, _ = make()
    time_of_record = (folder / path).stat().st_mtime
    os.utime(folder / "results/a/out.txt", (time_of_record, time_of_record))

    def fail(file, count):
        pytest.fail(f"{file} was read")

    monkeypatch.setattr("rib.records.hashing.sha256", fail)
    # when
    number_of_records = provenance.gather([Path("results/a")])
    # then
    assert number_of_records == 1


def test_one_of_two_shared_lines_is_enough_and_the_newest_of_them_counts(folder):
    """Where branches that made the same were merged, going back to either is no loss.

    Going back to what is older than both is one.
    """
    # given
    path, mine = make(ended="2026-02-01T10:00:00.000+00:00")
    newer = {**mine, "ended": "2026-02-03T10:00:00.000+00:00", "seconds": 9.0}
    older = {**mine, "ended": "2026-01-01T10:00:00.000+00:00", "seconds": 8.0}
    another_older = {**older, "seconds": 7.0}
    another_of_the_same_time = {**mine, "seconds": 7.0}
    # then mine may be gathered if it is one of the lines, or newer than all
    for lines in ([mine, newer], [older, older], [another_older]):
        provenance.save({path: lines})
        assert provenance.gather([Path("results/a")]) == 1
        assert provenance.load() == {path: [mine]}
    # and not otherwise
    for lines in ([older, newer], [newer, older], [another_of_the_same_time]):
        provenance.save({path: lines})
        with pytest.raises(UserError, match="^provenance.jsonl .*results/a/"):
            provenance.gather([Path("results/a")])
        assert provenance.load() == {path: lines}


def test_a_link_whose_bytes_are_elsewhere_is_an_output_that_is_here(folder):
    """As DVC leaves it where its cache was moved; nobody changed it since."""
    # given
    path, record = make()
    output = folder / "results/a/out.txt"
    output.unlink()
    output.symlink_to(folder / "moved")
    before_the_record = (folder / path).stat().st_mtime - 5
    os.utime(output, (before_the_record, before_the_record), follow_symlinks=False)
    # when
    number_of_records = provenance.gather([Path("results/a")])
    # then
    assert number_of_records == 1
    assert provenance.load() == {path: [record]}


# Changes of a record. Each makes one part of it wrong.
WRONG = {
    "seconds: text": {"seconds": "1"},
    "seconds: true": {"seconds": True},
    "size: negative": {"sizes": {output("a"): -1}},
    "size: no number": {"sizes": {output("a"): float("nan")}},
    "hash: short": {"outputs": {output("a"): "0" * 63}},
    "hash: none": {"inputs": {"x": None}},
    "output: outside": {"outputs": {"results/../../secret": OTHER_HASH}},
    "output: elsewhere": {"outputs": {"config.yaml": OTHER_HASH}},
    "output: folder": {"outputs": {"results/": OTHER_HASH}},
    "output: escape": {"outputs": {"results/a/\x1b[2J": OTHER_HASH}},
    "input: not normal": {"inputs": {"results/./a/out.txt": OTHER_HASH}},
    "rule: escape": {"rule": "\x1b[2J"},
    "settings: list": {"cfg": ["a"]},
    "end: no time": {"ended": "now"},
    "end: no time zone": {"ended": "2026-01-01T10:00:00"},
    "machine: nothing": {"machine": {}},
    "machine: escape": {"machine": {**FACTS["machine"], "gpu": "\x1b[2J"}},
    "machine: number": {"machine": {**FACTS["machine"], "processor": 1}},
    "accepted: no settings": {"accepted": {"cfg": None, "commit": None, "date": FACTS["ended"]}},
    "listed inputs: numbers": {"listed_inputs": [1]},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_a_record_with_a_wrong_part_is_none_and_its_line_is_named(folder, change):
    # given
    path, record = make()
    provenance.save({path: [record, {**record, **change}]})
    # then
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 2 ") as error:
        provenance.load()
    assert str(error.value).isprintable()
    # and
    make(**change)
    assert provenance.read(Path(path)) is None


def test_a_line_of_another_file_than_a_record_is_named(folder):
    _, record = make()
    provenance.save({"results/a/out.txt": [record]})
    with pytest.raises(UserError, match=r"^provenance\.jsonl, line 1 "):
        provenance.load()


def link_results(elsewhere):
    """All results lie on another disk."""
    shutil.move("results", elsewhere / "disk")
    Path("results").symlink_to(elsewhere / "disk")


def link_to_dvc_cache(elsewhere):
    """An output is a link into DVC's cache."""
    cached_file = elsewhere / "cache/files/md5/00" / ("0" * 30)
    cached_file.parent.mkdir(parents=True)
    shutil.move(output("a"), cached_file)
    Path(output("a")).symlink_to(cached_file)


@pytest.mark.parametrize("arrange", [link_results, link_to_dvc_cache])
def test_links_that_users_have_match(folder, arrange, tmp_path_factory):
    path, record = make()
    arrange(tmp_path_factory.mktemp("elsewhere"))
    assert match({path: [record]}) == {path: record}
