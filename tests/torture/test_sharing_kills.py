"""`rib pull` and `track` on a tiny project, killed at random moments.

All their processes are killed. RIB_KILLS says how often in all, 20 where it is not set.
"""

import math
import os
import shutil
import sys
import time

import pytest

from tiny.projects import family
from tiny.projects.kills import ordeal
from tiny.projects.project import ROOT, Project, copy_project

KILLS = int(os.environ.get("RIB_KILLS", "20"))
CONFIG = {"pull": (), "track": ("--config", "family=tiny", "catalog=mine")}
# What tools keep for themselves: records, logs and objects, whose names or bytes tell times.
FILES_OF_TOOLS = (".git", ".snakemake", "logs", "__pycache__", "printed.txt", "tmp")


def files_of(project: Project) -> dict[str, object]:
    """Bytes of every file, and that there is every folder.

    Left out are those that tools keep, and DVC's records and caches.
    """
    files = {}
    for path in project.folder.rglob("*"):
        relative_path = path.relative_to(project.folder)
        name = str(relative_path)
        is_left_of_dvc = path.name.startswith(".") and path.suffix == ".tmp"  # it is ignored
        if is_left_of_dvc or set(FILES_OF_TOOLS).intersection(relative_path.parts):
            continue
        if not path.is_file():
            files[name] = "a folder"
        else:
            files[name] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A finished project under git with a storage beside it, and a clone of it, tracked."""
    folder = tmp_path_factory.mktemp("shared")
    project = Project(folder / "finished")
    family.make(copy_project(project.folder) / "mine")
    project.snakemake()
    project.git("init", "-q", "-b", "main")
    project.dvc("remote", "add", "--local", "--default", "storage", "../storage")
    tracked = Project(shutil.copytree(project.folder, folder / "tracked", symlinks=True))
    tracked.commit("results")
    tracked.dvc("push")
    tracked.git("clone", "-q", ".", "../clone")
    shutil.copy(project.folder / ".dvc/config.local", folder / "clone/.dvc/config.local")
    return {"track": project.folder, "pull": folder / "clone"}


@pytest.mark.parametrize("command", ["pull", "track"])
def test_a_killed_call_is_made_up_for_by_the_next(projects, command, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))

    def copy_anew(project):
        shutil.rmtree(tmp_path / "tmp", ignore_errors=True)
        (tmp_path / "tmp").mkdir()
        shutil.rmtree(project.folder, ignore_errors=True)
        shutil.copytree(projects[command], project.folder, symlinks=True)

    # given: what an undisturbed call makes, and how long it takes
    (tmp_path / "storage").symlink_to(projects["pull"].parent / "storage")
    undisturbed = Project(tmp_path / "whole")
    copy_anew(undisturbed)
    words = (sys.executable, "-m", "rib.commands", command, *CONFIG[command])
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow/lib"))
    begun = time.monotonic()
    run = undisturbed.start(*words)
    assert run.wait() == 0, undisturbed.printed()
    seconds = time.monotonic() - begun
    print(f"\n{command}, undisturbed: {seconds:.1f} s", flush=True)
    expected_files = files_of(undisturbed)
    expected_plan = undisturbed.planned()
    # when: calls are killed, and called again
    killed = Project(tmp_path / "killed")
    copy_anew(killed)
    kills = math.ceil(KILLS / 2)
    for completed in ordeal(killed, kills, 0.9 * seconds, 0, words, copy_anew, seconds / 3):
        # then: all files are the same, and nothing else is left
        files = files_of(killed)
        differing = sorted(
            name
            for name in expected_files.keys() | files.keys()
            if expected_files.get(name) != files.get(name)
        )
        print(
            f"{command}: came through after {completed.kills} kills, "
            f"{len(files)} files, differing: {differing}",
            flush=True,
        )
        assert differing == []
        for path in (tmp_path / "tmp").iterdir():
            assert path.name.startswith("snakemake"), "Snakemake's own, among the system's"
        assert killed.planned() == expected_plan
        assert {path.name for path in tmp_path.iterdir()} == {"storage", "whole", "killed", "tmp"}
