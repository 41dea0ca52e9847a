"""Which jobs are sampled, and what is kept when their bytes are the same."""

import contextlib
import hashlib
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rib import provenance
from rib.accept import accept, chosen, sample_size
from rib.io import UserError, sha256
from rib.job import processor, versions

OLD, NEW = "old digest", "new digest"


def change(kind: str = "k", model: str = "m") -> dict:
    return {"rule": "r", "code": NEW, "kind": kind, "model": model}


def test_the_sample_has_every_kind_and_models_in_turn():
    changes = {f"{kind}/{model}/{n}": change(kind, model) for kind in "ab" for model in "xyz" for n in range(9)}
    sample = chosen(changes, 2)
    assert len(sample) == 4 and sample == chosen(dict(reversed(changes.items())), 2)
    for kind in "ab":
        assert len({changes[path]["model"] for path in sample if changes[path]["kind"] == kind}) == 2
    assert set(chosen(changes, 1)) < set(chosen(changes, 2)) < set(chosen(changes, 5))
    assert len(chosen(changes, 1000)) == len(changes)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_sample_of_nothing_is_refused(text):
    with pytest.raises(UserError, match="RIB_ACCEPT_SAMPLE is .* whole number from 1"):
        sample_size(text)
    assert (sample_size("1"), sample_size("3")) == (1, 3)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Three jobs of one kind; the changes of their code, by path of their record."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        make(Path(), name, OLD)
    return {f"results/{name}/provenance.json": change() for name in "abc"}


def make(root: Path, name: str, code: str, text: str = "bytes") -> None:
    place = root / f"results/{name}"
    place.mkdir(parents=True)
    (place / "out.txt").write_text(text)
    made = {
        **{"rule": "r", "log": f"logs/{name}.log", "cfg": {"code": code, "a": 1}, "inputs": {}, "seconds": 1.0},
        **{"ended": "2026-01-01T00:00:00+00:00", "versions": {}},
        "outputs": {f"results/{name}/out.txt": sha256(place / "out.txt")},
    }
    (place / "provenance.json").write_text(json.dumps(made))


def rehearsal(folder: Path, text: str = "bytes", code: str = NEW):
    """Makes jobs in a folder, and notes which."""

    def rehearse(by_rule):
        for path in by_rule["r"]:
            make(folder, Path(path).parts[-2], code, text)
        return contextlib.nullcontext(folder)

    return rehearse


def records() -> dict[str, str]:
    return {str(path): path.read_text() for path in sorted(Path("results").rglob("provenance.json"))}


def test_the_same_bytes_are_accepted_and_the_records_say_so(finished, tmp_path, capsys):
    noted = {}
    accept(finished, 1, rehearsal(tmp_path / "elsewhere"), noted.__setitem__)
    assert list(noted) == list(finished) and "3 jobs accepted" in capsys.readouterr().out
    for path, text in records().items():
        made = json.loads(text)
        (entry,) = made["accepted"]
        assert made["cfg"] == {"code": NEW, "a": 1} and list(made["cfg"]) == ["code", "a"] and noted[path] == made
        assert (entry["from"], entry["to"], entry["sample"]) == (OLD, NEW, chosen(finished, 1)) and entry["when"]
    accept(
        {path: {**change(), "code": "third"} for path in finished}, 1, rehearsal(tmp_path / "b", code="third"), print
    )
    assert [len(json.loads(text)["accepted"]) for text in records().values()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("rehearse", "said"),
    [
        ({"text": "other"}, r"results/\w/out\.txt.* other bytes .* in 2 of 2 sampled jobs \(r\); nothing was accepted"),
        ({"code": "edited meanwhile"}, "the code changed while .* nothing was accepted"),
    ],
)
def test_other_bytes_or_other_code_change_no_record(finished, tmp_path, rehearse, said):
    before = records()
    with pytest.raises(UserError, match=said):
        accept(finished, 2, rehearsal(tmp_path / "elsewhere", **rehearse), pytest.fail)
    assert records() == before


def test_jobs_whose_files_are_not_as_recorded_are_left_out(finished, tmp_path, capsys):
    Path("results/b/out.txt").write_text("edited")
    noted = {}
    accept(finished, 5, rehearsal(tmp_path / "elsewhere"), noted.__setitem__)
    assert [Path(path).parts[-2] for path in noted] == ["a", "c"]
    assert "not here: 1 job\n" in capsys.readouterr().out


def test_with_no_change_nothing_is_made(finished, capsys):
    accept({}, 2, pytest.fail, pytest.fail)
    assert "nothing to accept" in capsys.readouterr().out


def test_within_a_kind_the_first_of_each_model_by_hash_come_first():
    changes = {f"{model}/{n}": change("k", model) for model in "xyz" for n in range(4)}
    by_hash = sorted(changes, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    of_model = {model: [path for path in by_hash if path.startswith(model)] for model in "xyz"}
    for number in (1, 2, 3, 5, 7, 12):
        rounds = [sorted((of_model[model][turn] for model in "xyz"), key=by_hash.index) for turn in range(4)]
        assert chosen(changes, number) == sorted([path for one in rounds for path in one][:number])
    assert chosen({}, 3) == []


@pytest.fixture
def of_two_kinds(tmp_path, monkeypatch):
    """Jobs of two kinds and rules, some made from others."""
    monkeypatch.chdir(tmp_path)
    for name in "abcdef":
        make(Path(), name, OLD)
    return {
        f"results/{name}/provenance.json": {**change("k1" if name in "abc" else "k2"), "rule": rule}
        for name, rule in zip("abcdef", ("r", "r", "r", "s", "s", "t"), strict=True)
    }


def test_jobs_are_made_anew_by_rule_and_each_record_names_the_sample_of_its_kind(of_two_kinds, tmp_path, capsys):
    asked = []

    def rehearse(by_rule):
        asked.append(dict(by_rule))
        for path in [path for paths in by_rule.values() for path in paths]:
            make(tmp_path / "elsewhere", Path(path).parts[-2], NEW)
        return contextlib.nullcontext(tmp_path / "elsewhere")

    sample = chosen(of_two_kinds, 2)
    accept(of_two_kinds, 2, rehearse, lambda path, record: None)
    (by_rule,) = asked
    assert sorted(path for paths in by_rule.values() for path in paths) == sample and len(sample) == 4
    assert all(of_two_kinds[path]["rule"] == rule for rule, paths in by_rule.items() for path in paths)
    assert list(by_rule) == sorted(by_rule)
    for path, text in records().items():
        (entry,) = json.loads(text)["accepted"]
        kind = of_two_kinds[path]["kind"]
        assert entry["sample"] == [other for other in sample if of_two_kinds[other]["kind"] == kind]
        assert set(entry) == {"from", "to", "when", "commit", "sample"} and text.endswith("\n}\n")
        assert datetime.fromisoformat(entry["when"]).utcoffset() == timedelta(0)
    said = capsys.readouterr().out
    assert "changed of 6 jobs; making 4 anew" in said and "4 of 4 sampled jobs" in said and "6 jobs accepted" in said
    assert "left to be made anew" not in said


@pytest.mark.parametrize("made", ["other", None], ids=["changed", "lost"])
def test_jobs_whose_inputs_are_not_as_recorded_are_left_out(finished, tmp_path, capsys, made):
    """Though their outputs are: what they would be made from now is not what they were made from."""
    Path("input.txt").write_text("text")
    for name in "ab":
        path = Path(f"results/{name}/provenance.json")
        inputs = {"input.txt": sha256(Path("input.txt"))} if name == "a" else {}
        path.write_text(json.dumps({**json.loads(path.read_text()), "inputs": inputs}))
    Path("input.txt").unlink() if made is None else Path("input.txt").write_text(made)
    before, noted = records(), {}
    accept(finished, 5, rehearsal(tmp_path / "elsewhere"), noted.__setitem__)
    assert [Path(path).parts[-2] for path in noted] == ["b", "c"]
    assert records()["results/a/provenance.json"] == before["results/a/provenance.json"]
    assert "not here: 1 job\n" in capsys.readouterr().out


def test_with_all_jobs_left_out_nothing_is_made(finished, capsys):
    for name in "abc":
        Path(f"results/{name}/out.txt").unlink()
    accept(finished, 2, pytest.fail, pytest.fail)
    said = capsys.readouterr().out
    assert "not here: 3 jobs\n" in said and "nothing to accept" in said


def test_one_sampled_job_with_other_bytes_is_enough_and_is_counted(finished, tmp_path, caplog):
    caplog.set_level("INFO")
    sample = chosen(finished, 3)

    def rehearse(by_rule):
        for path in by_rule["r"]:
            make(tmp_path / "elsewhere", Path(path).parts[-2], NEW, "other" if path == sample[1] else "bytes")
        return contextlib.nullcontext(tmp_path / "elsewhere")

    different = f"results/{Path(sample[1]).parts[-2]}/out.txt"
    with pytest.raises(UserError, match=rf"^{different}: other bytes .* in 1 of 3 sampled jobs"):
        accept(finished, 3, rehearse, pytest.fail)
    assert f"other bytes: {different} (job {sample[1]})" in caplog.text
    with pytest.raises(UserError, match=r"^results/a/out\.txt and 2 more files: other bytes .* in 3 of 3 sampled jobs"):
        accept(finished, 3, rehearsal(tmp_path / "third", text="other"), pytest.fail)


def test_a_sampled_job_that_left_no_record_is_refused(finished, tmp_path):
    def rehearse(by_rule):
        (tmp_path / "elsewhere").mkdir()
        return contextlib.nullcontext(tmp_path / "elsewhere")

    before = records()
    with pytest.raises(UserError, match=r"code changed .*results/a/provenance\.json"):
        accept(finished, 3, rehearse, pytest.fail)
    assert records() == before


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (lambda: {"versions": versions(), "machine": {"processor": processor()}}, False),
        (lambda: {"versions": versions(), "machine": {"processor": "another"}}, True),
        (lambda: {"versions": {"python": "2"}, "machine": {"processor": processor()}}, True),
        (lambda: {}, True),
    ],
    ids=["as here", "another processor", "other versions", "neither is known"],
)
def test_other_surroundings_are_named_where_they_may_be_the_reason(finished, tmp_path, facts, told):
    for path in finished:
        record = {key: value for key, value in json.loads(Path(path).read_text()).items() if key != "versions"}
        Path(path).write_text(json.dumps({**record, **facts()}))
    with pytest.raises(UserError, match="other bytes") as error:
        accept(finished, 1, rehearsal(tmp_path / "elsewhere", text="other"), pytest.fail)
    assert ("other library versions or another processor" in str(error.value)) == told


def test_a_job_whose_input_was_not_pulled_is_left_out_though_nothing_differs(finished, tmp_path):
    """Its input's job is known, and has nothing here."""
    path = Path("results/b/provenance.json")
    inputs = {"results/a/out.txt": sha256(Path("results/a/out.txt"))}
    path.write_text(json.dumps({**json.loads(path.read_text()), "inputs": inputs}))
    provenance.gather([Path("results")])
    shutil.rmtree("results/a")
    noted = {}
    accept(finished, 5, rehearsal(tmp_path / "elsewhere"), noted.__setitem__)
    assert [Path(path).parts[-2] for path in noted] == ["c"]
