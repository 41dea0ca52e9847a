"""Which jobs are sampled, and what is kept when their bytes are the same."""

import contextlib
import hashlib
import itertools
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.records import provenance
from rib.records.accept import accept, sample_of, sample_size
from tiny.records import edit, make, record

# Digests of code.
OLD = "old digest"
NEW = "new digest"


def settings_of_job(code: str) -> dict:
    """Settings of a job that was run with code of this digest."""
    return {"code": code, "a": 1}


def change_of(kind: str = "k", model: str = "m") -> dict:
    """The change of the code of a job of this kind and model."""
    return {"code": NEW, "kind": kind, "model": model}


def test_the_sample_has_every_kind_and_models_in_turn():
    # given nine jobs of each kind and model
    changes = {}
    for kind, model, number in itertools.product("ab", "xyz", range(9)):
        changes[f"{kind}/{model}/{number}"] = change_of(kind, model)
    in_other_order = dict(reversed(changes.items()))
    # when
    sample = sample_of(changes, 2)
    # then
    assert len(sample) == 4
    assert sample == sample_of(in_other_order, 2)
    for kind in "ab":
        models = [changes[path]["model"] for path in sample if changes[path]["kind"] == kind]
        assert len(models) == 2
        assert len(set(models)) == 2
    # and a larger sample has the jobs of a smaller one
    assert set(sample_of(changes, 1)) < set(sample)
    assert set(sample) < set(sample_of(changes, 5))
    assert sample_of(changes, 1000) == sorted(changes)


def test_within_a_kind_the_first_of_each_model_by_hash_come_first():
    """Each turn takes a job of each model, in the order of the hashes of their paths."""
    # given
    changes = {}
    for model, number in itertools.product("xyz", range(4)):
        changes[f"{model}/{number}"] = change_of("k", model)

    def hash_of(path):
        return hashlib.sha256(path.encode()).hexdigest()

    paths_of_models = [
        sorted((path for path in changes if path.startswith(model)), key=hash_of) for model in "xyz"
    ]
    in_turns = []
    for paths_of_turn in zip(*paths_of_models, strict=True):
        in_turns += sorted(paths_of_turn, key=hash_of)
    # then
    for number in (1, 2, 3, 5, 7, 12):
        assert sample_of(changes, number) == sorted(in_turns[:number])
    assert sample_of({}, 3) == []


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_sample_of_nothing_is_refused(text):
    with pytest.raises(UserError, match="RIB_ACCEPT_SAMPLE"):
        sample_size(text)
    assert sample_size("1") == 1
    assert sample_size("3") == 3


@pytest.fixture
def changes(tmp_path, monkeypatch):
    """Changes of the code of three finished jobs of one kind, by path of their record."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        make(name, cfg=settings_of_job(OLD))
    return {record(name): change_of() for name in "abc"}


def name_of(path: str) -> str:
    """The job's name in the path of its record."""
    return Path(path).parent.name


def rerunning(folder: Path, text: str = "made", code: str = NEW, different: str | None = None):
    """A function that makes jobs again in a folder, as `accept` calls it.

    Args:
        text: of their outputs.
        code: digest of the code that they are made with.
        different: the record of a job whose output comes out with another text.
    """

    def rerun(paths):
        for path in paths:
            text_of_job = "other" if path == different else text
            make(name_of(path), text_of_job, root=folder, cfg=settings_of_job(code))
        return contextlib.nullcontext(folder)

    return rerun


def read_records() -> dict[str, str]:
    """Texts of all records of jobs, by path."""
    paths = sorted(Path("results").rglob("provenance.json"))
    return {str(path): path.read_text() for path in paths}


def pass_over(path, record):
    """Notifies nobody of a changed record."""


def test_the_same_bytes_are_accepted_and_the_records_say_so(changes, tmp_path, capsys):
    # given
    noted_records = {}
    # when
    accept(changes, 1, rerunning(tmp_path / "elsewhere"), noted_records.__setitem__)
    # then
    assert list(noted_records) == list(changes)
    assert "3 jobs accepted" in capsys.readouterr().out
    texts = read_records()
    assert set(texts) == set(changes)
    for path, text in texts.items():
        new_record = provenance.read(Path(path))
        assert new_record["cfg"] == {"code": NEW, "a": 1}
        assert list(new_record["cfg"]) == ["code", "a"], "settings keep their order"
        assert noted_records[path] == new_record
        assert text.endswith("\n}\n")
        (acceptance,) = new_record["accepted"]
        assert set(acceptance) == {"from", "to", "when", "commit", "sample"}
        assert acceptance["from"] == OLD
        assert acceptance["to"] == NEW
        assert acceptance["sample"] == sample_of(changes, 1)
        assert datetime.fromisoformat(acceptance["when"]).utcoffset() == timedelta(0)


def test_a_second_acceptance_is_noted_after_the_first(changes, tmp_path):
    # given
    accept(changes, 1, rerunning(tmp_path / "second"), pass_over)
    # when
    next_changes = {path: {**change_of(), "code": "third digest"} for path in changes}
    accept(next_changes, 1, rerunning(tmp_path / "third", code="third digest"), pass_over)
    # then
    for path in changes:
        acceptances = provenance.read(Path(path))["accepted"]
        codes = [(acceptance["from"], acceptance["to"]) for acceptance in acceptances]
        assert codes == [(OLD, NEW), (NEW, "third digest")]


def test_snakemake_is_told_before_and_after_a_record_changes(changes, tmp_path):
    """A call that is killed in between leaves a record with the old code.

    The next call finds the job by it.
    """
    # given
    notifications = []

    def note(path, record):
        code_in_file = json.loads(Path(path).read_text())["cfg"]["code"]
        notifications.append((path, code_in_file, record["cfg"]["code"]))

    # when
    accept(changes, 1, rerunning(tmp_path / "elsewhere"), note)
    # then
    expected_notifications = []
    for path in changes:
        before = (path, OLD, NEW)
        after = (path, NEW, NEW)
        expected_notifications += [before, after]
    assert notifications == expected_notifications


def test_each_record_names_the_sample_of_its_kind(changes, tmp_path, capsys):
    # given
    for name in "def":
        make(name, cfg=settings_of_job(OLD))
    changes_of_other_kind = {record(name): change_of("other kind") for name in "def"}
    all_changes = {**changes, **changes_of_other_kind}
    rerun = rerunning(tmp_path / "elsewhere")
    samples = []

    def note_and_rerun(paths):
        samples.append(list(paths))
        return rerun(paths)

    # when
    accept(all_changes, 2, note_and_rerun, pass_over)
    # then
    (sample,) = samples
    assert sample == sample_of(all_changes, 2)
    sample_of_kind = {
        "k": [path for path in sample if path in changes],
        "other kind": [path for path in sample if path in changes_of_other_kind],
    }
    assert len(sample_of_kind["k"]) == 2
    assert len(sample_of_kind["other kind"]) == 2
    texts = read_records()
    assert set(texts) == set(all_changes)
    for path, text in texts.items():
        (acceptance,) = json.loads(text)["accepted"]
        assert acceptance["sample"] == sample_of_kind[all_changes[path]["kind"]]
    printed = capsys.readouterr().out
    assert "6 jobs; re-running 4" in printed
    assert "4 sampled jobs" in printed
    assert "6 jobs accepted" in printed


@pytest.mark.parametrize("how", [{"text": "other"}, {"code": "edited meanwhile"}])
def test_other_bytes_or_other_code_change_no_record(changes, tmp_path, how):
    records_before = read_records()
    rerun = rerunning(tmp_path / "elsewhere", **how)
    with pytest.raises(UserError, match="results/a/"):
        accept(changes, 3, rerun, pytest.fail)
    assert read_records() == records_before


def test_one_sampled_job_with_other_bytes_is_enough_and_is_counted(changes, tmp_path, caplog):
    # given
    caplog.set_level("INFO")
    _, different, _ = sample_of(changes, 3)
    output_of_different = f"results/{name_of(different)}/out.txt"
    rerun_with_one_different = rerunning(tmp_path / "elsewhere", different=different)
    rerun_with_all_different = rerunning(tmp_path / "third", text="other")
    # then
    with pytest.raises(UserError, match=f"^{output_of_different} .*1 of 3 "):
        accept(changes, 3, rerun_with_one_different, pytest.fail)
    assert f"{output_of_different} (job {different})" in caplog.text
    with pytest.raises(UserError, match="^results/a/out.txt .*3 of 3 "):
        accept(changes, 3, rerun_with_all_different, pytest.fail)


def test_a_sampled_job_that_left_no_record_is_refused(changes, tmp_path):
    # given
    records_before = read_records()
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def make_nothing(paths):
        return contextlib.nullcontext(folder)

    # then
    with pytest.raises(UserError, match="results/a/provenance.json"):
        accept(changes, 3, make_nothing, pytest.fail)
    assert read_records() == records_before


def edit_output():
    """The output of job a is another than it recorded."""
    Path("results/a/out.txt").write_text("edited")


def record_input():
    """Job a has recorded an input, which is here."""
    Path("input.txt").write_text("text")
    edit("a", inputs={"input.txt": sha256(Path("input.txt"))})


def edit_input():
    """The input of job a is another than it recorded."""
    record_input()
    Path("input.txt").write_text("other")


def lose_input():
    """The input of job a is gone."""
    record_input()
    Path("input.txt").unlink()


def take_away_the_input_and_its_job():
    """Its job is known, and has nothing here."""
    make("d", cfg=settings_of_job(OLD))
    edit("a", inputs={"results/d/out.txt": sha256(Path("results/d/out.txt"))})
    provenance.gather([Path("results")])
    shutil.rmtree("results/d")


def test_jobs_whose_inputs_are_as_recorded_are_accepted(changes, tmp_path):
    record_input()
    accept(changes, 5, rerunning(tmp_path / "elsewhere"), pass_over)
    for path in changes:
        assert provenance.read(Path(path))["cfg"]["code"] == NEW


@pytest.mark.parametrize(
    "damage",
    [edit_output, edit_input, lose_input, take_away_the_input_and_its_job],
    ids=["output edited", "input edited", "input lost", "input not pulled"],
)
def test_jobs_whose_files_are_not_as_recorded_are_left_out(changes, tmp_path, capsys, damage):
    """Inputs too: what they would be made from now is not what they were made from."""
    # given
    damage()
    records_before = read_records()
    noted_records = {}
    # when
    accept(changes, 5, rerunning(tmp_path / "elsewhere"), noted_records.__setitem__)
    # then
    assert list(noted_records) == [record("b"), record("c")]
    assert read_records()[record("a")] == records_before[record("a")]
    assert ": 1 jobs\n" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["", "abc"])
def test_with_no_job_to_keep_nothing_is_made(changes, capsys, lost):
    """Neither where no code has changed, nor where the outputs of all jobs are lost."""
    # given
    for name in lost:
        Path(f"results/{name}/out.txt").unlink()
    changes_of_lost = {record(name): changes[record(name)] for name in lost}
    # when
    accept(changes_of_lost, 2, pytest.fail, pytest.fail)
    # then
    assert "nothing to accept" in capsys.readouterr().out
