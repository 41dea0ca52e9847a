"""Which files of a catalogue no commit has."""

import subprocess
from pathlib import Path

import pytest

from rib.report.outside_git import outside_git


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    for name in ("own/methods.yaml", "own/methods/new.py", "own/photos/a.png", "own/classes/c.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")
    subprocess.run(["git", "add", "own/methods.yaml"], check=True)
    return tmp_path


def test_files_of_the_catalogue_that_git_does_not_track_are_named(repository):
    assert outside_git(["own"]) == ["own/classes/c.csv", "own/methods/new.py"]
    subprocess.run(["git", "add", "own"], check=True)
    assert outside_git(["own"]) == []


def test_a_folder_outside_of_any_repository_has_none_that_is_tracked(repository):
    (repository / ".git").rename(repository / "moved")
    assert outside_git([repository / "own"]) == [
        str(repository / "own" / name)
        for name in ("classes/c.csv", "methods.yaml", "methods/new.py")
    ]
