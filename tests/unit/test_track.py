"""What is handed to DVC, and when nothing is."""

import contextlib
import os
import re
from pathlib import Path

import pytest
import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_objects.fs.utils import tmp_fname

from rib.base.errors import UserError
from rib.records import track as tracking
from rib.records.provenance import FILE, load
from rib.records.pull import pull
from tiny.records import make


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

    class Repository(contextlib.nullcontext):
        _lock_depth = 1  # it is locked

        def add(self, paths):
            calls.append((*paths, FILE.is_file()))

    monkeypatch.setattr(tracking, "Repo", lambda: Repository(Repository()))
    return calls


def test_each_unit_is_added_once_after_its_records_were_gathered(called):
    tracking.track(["results/*", "results/a", "nothing/*"], Path("reports/f"))
    assert called == [("results/a", "results/b", True)]
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


@pytest.mark.parametrize("units", [[], ["nothing/*"], ["results/*.dvc"]], ids=str)
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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DvcException("two\n  lines\n"), "two lines"),
        (OSError("no answer"), "OSError: no answer"),
        (
            DvcException("no answer of https://me:secret@host/a?key=hidden"),
            r"no answer of https://\[redacted\]@host/a\?\[redacted\]",
        ),
        (UserError("a sentence"), "a sentence"),
        (DvcException("long " * 1000), "long"),
    ],
)
def test_errors_of_dvc_are_one_line_without_secrets(monkeypatch, error, line):
    def fail():
        raise error

    monkeypatch.setattr(tracking, "Repo", fail)
    with pytest.raises(UserError, match=f"^{line}") as caught, tracking.dvc_repository():
        pass
    told = str(caught.value)
    assert (
        "\n" not in told
        and len(told) <= 1000
        and not {"secret", "hidden"} & {*re.findall(r"\w+", told)}
    )


def test_a_refusal_of_dvc_has_its_reason():
    """Nobody made this folder a DVC repository."""
    with pytest.raises(UserError, match="DVC repository"):
        tracking.track(["results/a"], Path("reports/f"))


def test_what_a_killed_dvc_left_is_removed_before_anything_is_added(tmp_path):
    with Repo.init(no_scm=True) as repo:
        repo.add("results/a")
    whole = Path("results/a.dvc").read_text()
    half = [Path("results/a", tmp_fname()), Path(".dvc/cache/files", tmp_fname())]
    for path in half:
        path.write_text("half a file")
    Path(".dvc/tmp/rwlock").write_text("")
    Path("results/a.dvc").write_text("")
    tracking.track(["results/a"], Path("reports/f"))
    assert Path("results/a.dvc").read_text() == whole and not any(path.exists() for path in half)


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["track", "pull"])
def test_what_another_command_of_dvc_has_at_work_is_left_alone(command):
    """It holds DVC's lock, and has temporary files in the cache and beside results."""
    with Repo.init(no_scm=True) as repo:
        repo.add(["results/a", "results/b"])
    Path(".dvc/config.local").write_text(
        """[core]\n    remote = storage\n['remote "storage"']\n    url = ../../storage\n"""
    )
    at_work = [Path("results/a", tmp_fname()), Path(".dvc/cache/files", tmp_fname())]
    for path in at_work:
        path.write_text("half a file")
    call = {
        "track": lambda: tracking.track(["results/*"], Path("reports/f")),
        "pull": lambda: pull([]),
    }[command]
    with Repo() as other, other.lock, pytest.raises(UserError, match="at work in this folder"):
        call()
    assert all(path.exists() for path in at_work) and not FILE.exists()
    call()
    assert not any(path.exists() for path in at_work), "it ended, so they are leftovers"
