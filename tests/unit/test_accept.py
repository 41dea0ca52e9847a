"""Which jobs are sampled, and what is kept when their bytes are the same."""

import contextlib
import json
from pathlib import Path

import pytest

from rib.accept import accept, chosen, sample_size
from rib.io import UserError, sha256

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
    assert sample_size("3") == 3


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
