"""Which jobs are sampled, and what is kept when their bytes are the same."""

import contextlib
import hashlib
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

OLD, NEW = "old digest", "new digest"


def made_with(code: str) -> dict:
    """Settings of a job."""
    return {"code": code, "a": 1}


def change(kind: str = "k", model: str = "m") -> dict:
    return {"code": NEW, "kind": kind, "model": model}


def test_the_sample_has_every_kind_and_models_in_turn():
    changes = {
        f"{kind}/{model}/{n}": change(kind, model)
        for kind in "ab"
        for model in "xyz"
        for n in range(9)
    }
    sample = sample_of(changes, 2)
    assert len(sample) == 4 and sample == sample_of(dict(reversed(changes.items())), 2)
    for kind in "ab":
        assert (
            len({changes[path]["model"] for path in sample if changes[path]["kind"] == kind}) == 2
        )
    assert set(sample_of(changes, 1)) < set(sample_of(changes, 2)) < set(sample_of(changes, 5))
    assert len(sample_of(changes, 1000)) == len(changes)


def test_within_a_kind_the_first_of_each_model_by_hash_come_first():
    changes = {f"{model}/{n}": change("k", model) for model in "xyz" for n in range(4)}
    by_hash = sorted(changes, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    of_model = {model: [path for path in by_hash if path.startswith(model)] for model in "xyz"}
    for number in (1, 2, 3, 5, 7, 12):
        rounds = [
            sorted((of_model[model][turn] for model in "xyz"), key=by_hash.index)
            for turn in range(4)
        ]
        assert sample_of(changes, number) == sorted(
            [path for one in rounds for path in one][:number]
        )
    assert sample_of({}, 3) == []


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_sample_of_nothing_is_refused(text):
    with pytest.raises(UserError, match="RIB_ACCEPT_SAMPLE"):
        sample_size(text)
    assert (sample_size("1"), sample_size("3")) == (1, 3)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Three jobs of one kind; the changes of their code, by path of their record."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        make(name, cfg=made_with(OLD))
    return {record(name): change() for name in "abc"}


def name_of(path: str) -> str:
    return Path(path).parts[-2]


def maker(folder: Path, text: str = "made", code: str = NEW, different: str | None = None):
    """Makes jobs again in a folder; one may come out different."""

    def made_again(paths):
        for path in paths:
            make(
                name_of(path),
                "other" if path == different else text,
                root=folder,
                cfg=made_with(code),
            )
        return contextlib.nullcontext(folder)

    return made_again


def records() -> dict[str, str]:
    return {
        str(path): path.read_text() for path in sorted(Path("results").rglob("provenance.json"))
    }


def test_the_same_bytes_are_accepted_and_the_records_say_so(finished, tmp_path, capsys):
    noted = {}
    accept(finished, 1, maker(tmp_path / "elsewhere"), noted.__setitem__)
    assert list(noted) == list(finished) and "3 jobs accepted" in capsys.readouterr().out
    for path, text in records().items():
        made = provenance.read(Path(path))
        (entry,) = made["accepted"]
        assert (
            made["cfg"] == {"code": NEW, "a": 1}
            and list(made["cfg"]) == ["code", "a"]
            and noted[path] == made
        )
        assert (entry["from"], entry["to"], entry["sample"]) == (OLD, NEW, sample_of(finished, 1))
        assert set(entry) == {"from", "to", "when", "commit", "sample"} and text.endswith("\n}\n")
        assert datetime.fromisoformat(entry["when"]).utcoffset() == timedelta(0)
    third = {path: {**change(), "code": "third"} for path in finished}
    accept(third, 1, maker(tmp_path / "b", code="third"), lambda path, record: None)
    assert [len(json.loads(text)["accepted"]) for text in records().values()] == [2, 2, 2]


def test_snakemake_is_told_before_and_after_a_record_changes(finished, tmp_path):
    """A call that is killed in between leaves a record with the old code.

    The next call finds the job by it.
    """
    told = []

    def note(path, record):
        told.append(
            (path, json.loads(Path(path).read_text())["cfg"]["code"], record["cfg"]["code"])
        )

    accept(finished, 1, maker(tmp_path / "elsewhere"), note)
    assert told == [(path, code, NEW) for path in finished for code in (OLD, NEW)]


def test_each_record_names_the_sample_of_its_kind(finished, tmp_path, capsys):
    for name in "def":
        make(name, cfg=made_with(OLD))
    changes = {**finished, **{record(name): change("other kind") for name in "def"}}
    sample, asked = sample_of(changes, 2), []

    def made_again(paths):
        asked.append(list(paths))
        return maker(tmp_path / "elsewhere")(paths)

    accept(changes, 2, made_again, lambda path, record: None)
    assert asked == [sample] and len(sample) == 4
    for path, text in records().items():
        (entry,) = json.loads(text)["accepted"]
        assert entry["sample"] == [
            other for other in sample if changes[other]["kind"] == changes[path]["kind"]
        ]
    printed = capsys.readouterr().out
    assert (
        "6 jobs; re-running 4" in printed
        and "4 sampled jobs" in printed
        and "6 jobs accepted" in printed
    )


@pytest.mark.parametrize("how", [{"text": "other"}, {"code": "edited meanwhile"}])
def test_other_bytes_or_other_code_change_no_record(finished, tmp_path, how):
    before = records()
    with pytest.raises(UserError, match="results/a/"):
        accept(finished, 3, maker(tmp_path / "elsewhere", **how), pytest.fail)
    assert records() == before


def test_one_sampled_job_with_other_bytes_is_enough_and_is_counted(finished, tmp_path, caplog):
    caplog.set_level("INFO")
    path = sample_of(finished, 3)[1]
    with pytest.raises(UserError, match=f"^results/{name_of(path)}/out.txt .*1 of 3 "):
        accept(finished, 3, maker(tmp_path / "elsewhere", different=path), pytest.fail)
    assert f"results/{name_of(path)}/out.txt (job {path})" in caplog.text
    with pytest.raises(UserError, match="^results/a/out.txt .*3 of 3 "):
        accept(finished, 3, maker(tmp_path / "third", text="other"), pytest.fail)


def test_a_sampled_job_that_left_no_record_is_refused(finished, tmp_path):
    before = records()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match="results/a/provenance.json"):
        accept(
            finished, 3, lambda paths: contextlib.nullcontext(tmp_path / "elsewhere"), pytest.fail
        )
    assert records() == before


def edit_output():
    Path("results/a/out.txt").write_text("edited")


def edit_input(text="other"):
    Path("input.txt").write_text("text")
    edit("a", inputs={"input.txt": sha256(Path("input.txt"))})
    Path("input.txt").unlink() if text is None else Path("input.txt").write_text(text)


def take_away_the_input_and_its_job():
    """Its job is known, and has nothing here."""
    make("d", cfg=made_with(OLD))
    edit("a", inputs={"results/d/out.txt": sha256(Path("results/d/out.txt"))})
    provenance.gather([Path("results")])
    shutil.rmtree("results/d")


@pytest.mark.parametrize(
    "damage",
    [edit_output, edit_input, lambda: edit_input(None), take_away_the_input_and_its_job],
    ids=["output edited", "input edited", "input lost", "input not pulled"],
)
def test_jobs_whose_files_are_not_as_recorded_are_left_out(finished, tmp_path, capsys, damage):
    """Inputs too: what they would be made from now is not what they were made from."""
    damage()
    before, noted = records(), {}
    accept(finished, 5, maker(tmp_path / "elsewhere"), noted.__setitem__)
    assert list(map(name_of, noted)) == ["b", "c"] and records()[record("a")] == before[record("a")]
    assert ": 1 jobs\n" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["", "abc"])
def test_with_no_job_to_keep_nothing_is_made(finished, capsys, lost):
    for name in lost:
        Path(f"results/{name}/out.txt").unlink()
    accept(finished if lost else {}, 2, pytest.fail, pytest.fail)
    assert "nothing to accept" in capsys.readouterr().out
