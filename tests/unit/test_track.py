"""What is handed to DVC, when nothing is, and what a line says beside the job's own record."""

import os
import re
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from dvc_objects.fs.utils import tmp_fname

from rib.base.errors import UserError
from rib.records import provenance
from rib.records import track as tracking
from rib.records.dvc_command import run_dvc
from rib.records.provenance import FILE, load
from rib.records.pull import restore_metadata
from rib.records.snakemake_metadata import SnakemakeMetadata
from tiny.projects.records import FACTS, make, output, record

ROOT = Path(__file__).parents[2]
ENDED = 1767261600.0  # seconds since 1970 of FACTS["ended"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two finished jobs in folders of their own, each with a .dvc file from before."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make(name)
        Path(f"results/{name}.dvc").write_text("outs: []")
    Path("reports/f/tables").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def called(monkeypatch):
    """Calls of DVC in place of DVC, and whether the records were there already."""
    calls = []
    monkeypatch.setattr(tracking, "run_dvc", lambda *words: calls.append((*words, FILE.is_file())))
    return calls


def test_each_unit_is_added_once_after_its_records_were_gathered(called):
    tracking.track(["results/*", "results/a", "nothing/*"], Path("reports/f"))
    assert called == [("add", "results/a", "results/b", True)]
    assert list(load()) == ["results/a/provenance.json", "results/b/provenance.json"]
    assert not Path("reports/f/dvc.yaml").exists(), "there is no table that it could show"


def test_the_tables_of_a_family_are_named_for_dvc(called):
    Path("reports/f/tables/mri.json").write_text("{}")
    tracking.track(["results/*"], Path("reports/f"))
    stated = yaml.safe_load(Path("reports/f/dvc.yaml").read_text())
    assert stated["metrics"] == ["tables/mri.json"]
    (plot,) = (facts for plot in stated["plots"] for facts in plot.values())
    assert (plot["x"], plot["y"], plot["template"]) == (
        "mri",
        {"tables/mri.csv": "method"},
        "intervals",
    )


@pytest.mark.parametrize("units", [["nothing/*"], ["results/*.dvc"]], ids=str)
def test_with_nothing_to_track_nothing_is_called(called, units):
    with pytest.raises(UserError, match="make run"):
        tracking.track(units, Path("reports/f"))
    assert called == [] and not FILE.exists()


def test_what_was_changed_after_its_record_is_not_added(called):
    Path("results/b/out.txt").write_text("changed")
    later = Path("results/b/provenance.json").stat().st_mtime + 5
    os.utime("results/b/out.txt", (later, later))
    with pytest.raises(UserError, match="^results/b/out.txt: "):
        tracking.track(["results/*"], Path("reports/f"))
    assert called == []


# DVC's messages


def dvc_that_prints(monkeypatch, text: str) -> None:
    """Let another program, which fails and prints a text, stand for DVC."""
    program = Path("dvc.sh").absolute()
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("WARNING: x\nERROR: two\n  lines\n", "two lines"),
        ("ERROR: unexpected error - no answer\n\nHaving any troubles? Hit us up at "
         "https://dvc.org/support, we are always happy to help!", "unexpected error - no answer"),
        (
            "ERROR: no answer of https://me:secret@host/a?key=hidden",
            "no answer of https://[redacted]@host/a?[redacted]",
        ),
        ("ERROR: x. Use `--force` to force.", "x. Delete them, share them (`rib track`), or pull "
         "others:"),
    ],
)  # fmt: skip
def test_errors_of_dvc_are_one_line_without_secrets(monkeypatch, printed, line):
    dvc_that_prints(monkeypatch, printed)
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        run_dvc("add")


def test_a_long_error_of_dvc_is_cut(monkeypatch):
    dvc_that_prints(monkeypatch, "ERROR: " + "long " * 1000)
    with pytest.raises(UserError) as error:
        run_dvc("add")
    assert len(str(error.value)) <= 1000


def test_a_refusal_of_dvc_has_its_reason():
    """Nobody made this folder a DVC repository."""
    with pytest.raises(UserError, match="DVC repository"):
        tracking.track(["results/a"], Path("reports/f"))


@pytest.mark.thorough
def test_what_a_killed_dvc_left_is_not_added(tmp_path):
    (tmp_path / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    with Repo.init(no_scm=True) as repo:
        repo.add("results/a")
    whole = Path("results/a.dvc").read_text()
    Path("results/a", tmp_fname()).write_text("half a file")
    Path(".dvc/tmp/rwlock").write_text("")
    Path("results/a.dvc").write_text("")
    tracking.track(["results/a"], Path("reports/f"))
    assert Path("results/a.dvc").read_text() == whole


# Lines of provenance.jsonl


def store(settings: dict, inputs: list[str], ended: float, checksums: dict | None = None) -> None:
    """Let Snakemake know job `a`, as it is after a run or after `snakemake --touch`."""
    metadata = SnakemakeMetadata()
    for path in (output("a"), record("a")):
        metadata.write(
            path,
            rule="r",
            settings=settings,
            inputs=inputs,
            checksums=checksums or {},
            log_file="l",
            started=ended,
            ended=ended,
        )


def track_a(called) -> dict:
    """Track job `a`; the line that provenance.jsonl has of it."""
    tracking.track(["results/a"], Path("reports/f"))
    (line,) = load()[record("a")]
    return line


def test_a_line_is_the_jobs_record_where_snakemake_knows_no_more(called):
    store(FACTS["cfg"], inputs=[], ended=ENDED - 0.1)
    assert track_a(called) == provenance.read(Path(record("a")))


def test_a_file_that_a_job_reads_in_two_roles_is_listed_twice(called):
    make("a", "made", "b")
    store(FACTS["cfg"], inputs=[output("b"), output("b")], ended=ENDED - 0.1)
    assert track_a(called)["listed_inputs"] == [output("b"), output("b")]


def test_what_was_accepted_is_added_and_the_settings_that_made_the_file_stay(called):
    store({"b": 2}, inputs=[], ended=ENDED + 100)
    line = track_a(called)
    accepted = line.pop("accepted")
    assert line == provenance.read(Path(record("a")))
    assert accepted == {"cfg": {"b": 2}, "commit": None, "date": "2026-01-01T10:01:40+00:00"}


def test_a_changed_input_is_accepted_too(called):
    make("a", "made", "b")
    make("b", "made again")
    now = {output("b"): provenance.read(Path(record("b")))["outputs"][output("b")]}
    store(FACTS["cfg"], inputs=[output("b")], ended=ENDED + 100, checksums=now)
    assert track_a(called)["accepted"]["cfg"] == FACTS["cfg"]


def test_touching_what_is_up_to_date_accepts_nothing(called):
    store(FACTS["cfg"], inputs=[], ended=ENDED + 100)
    assert track_a(called) == provenance.read(Path(record("a")))


def test_metadata_of_an_earlier_job_accepts_nothing(called):
    """As after plain `dvc pull` over results of one's own."""
    store({"b": 2}, inputs=[], ended=ENDED - 100)
    assert track_a(called) == provenance.read(Path(record("a")))


def test_a_line_stays_as_it_is_where_snakemake_knows_nothing(called):
    store({"b": 2}, inputs=["x"], ended=ENDED + 100)
    line = track_a(called)
    Path(".snakemake").rename("lost")
    assert track_a(called) == line


def test_an_edit_that_is_taken_back_is_no_longer_accepted(called):
    store({"b": 2}, inputs=[], ended=ENDED + 100)
    assert "accepted" in track_a(called)
    store(FACTS["cfg"], inputs=[], ended=ENDED + 200)
    assert track_a(called) == provenance.read(Path(record("a")))


def test_results_of_changed_inputs_that_were_accepted_are_newer_than_these(called):
    # given
    make("a", "made", "b")
    make("b", "made again", ended="2026-01-01T10:00:30.000+00:00")
    now = {output("b"): provenance.read(Path(record("b")))["outputs"][output("b")]}
    store(FACTS["cfg"], inputs=[output("b")], ended=ENDED + 100, checksums=now)
    tracking.track(["results/*"], Path("reports/f"))
    Path(".snakemake").rename("lost")
    # when
    assert restore_metadata() == 2
    # then
    times = [Path(output(name)).stat().st_mtime for name in ("b", "a")]
    assert times == [ENDED + 30, ENDED + 100]


def test_what_was_accepted_reaches_the_snakemake_of_whoever_pulls_and_comes_back(called):
    # given results that were accepted, and a clone without Snakemake's metadata
    store({"b": 2}, inputs=["x"], ended=ENDED + 100)
    line = track_a(called)
    before = FILE.read_bytes()
    Path(".snakemake").rename("lost")
    # when
    assert restore_metadata() == 1
    # then
    stored = SnakemakeMetadata().read(output("a"))
    assert (stored.settings, stored.inputs) == ("{'b': 2}", ["x"])
    assert stored.ended == Path(output("a")).stat().st_mtime == ENDED, "others don't look older"
    assert restore_metadata() == 0, "it is known"
    assert track_a(called) == line and FILE.read_bytes() == before


def test_what_was_accepted_later_reaches_whoever_has_pulled_before(called):
    # given
    store(FACTS["cfg"], inputs=[], ended=ENDED - 0.1)
    track_a(called)
    Path(".snakemake").rename("of_owner")
    restore_metadata()
    # when the owner accepts other settings
    Path(".snakemake").rename("of_colleague")
    Path("of_owner").rename(".snakemake")
    store({"b": 2}, inputs=[], ended=ENDED + 100)
    track_a(called)
    Path(".snakemake").rename("of_owner")
    Path("of_colleague").rename(".snakemake")
    os.utime(output("a"), (ENDED, ENDED))
    os.utime(record("a"), (ENDED, ENDED))
    # then
    assert restore_metadata() == 1
    assert SnakemakeMetadata().read(output("a")).settings == "{'b': 2}"
