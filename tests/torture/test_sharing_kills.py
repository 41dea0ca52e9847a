"""`snakemake pull`, `track` and `accept` on a tiny project, killed at random moments.

All their processes are killed. RIB_KILLS says how often in all, 20 where it is not set.
"""

import json
import os
import shutil
import time

import pytest

from tiny import family
from tiny.kills import ordeal
from tiny.project import Project, copy_project

KILLS = int(os.environ.get("RIB_KILLS", "20"))
WORDS = ("--config", "family=tiny", "catalog=mine")
# What tools keep for themselves: records, logs and objects, whose names or bytes tell times.
KEPT = (".git", ".snakemake", "logs", "__pycache__", "printed.txt")


def files_of(project: Project) -> dict[str, object]:
    """Bytes of every file, and that there is every folder.

    Left out are those that tools keep, and DVC's records and caches.
    """
    found = {}
    for path in project.folder.rglob("*"):
        name = path.relative_to(project.folder)
        if not set(KEPT).intersection(name.parts):
            found[str(name)] = path.read_bytes() if path.is_file() else "a folder"
    for name in [name for name in found if name.startswith(".dvc/tmp/")]:
        found[name] = (
            "" if name.endswith(("btime", "lock")) else found[name]
        )  # they tell a time and a process
    for name in [
        name for name in found if name.endswith("provenance.json") or name == "provenance.jsonl"
    ]:
        records = (
            [json.loads(line) for line in found[name].splitlines()]
            if name.endswith("l")
            else [json.loads(found[name])]
        )
        for record in records:
            for accepted in record.get("accepted", ()):
                del (
                    accepted["when"],
                    accepted["sample"],
                )  # a later call chooses among the jobs that are left
                record["sha256"] = "of these, too"
        found[name] = records
    return found


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A finished project under git with a storage beside it, and two copies.

    One is the same with its code changed, the other a clone of it, tracked.
    """
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
    changed = Project(shutil.copytree(tracked.folder, folder / "changed", symlinks=True))
    lwf = ("self.weight * self.temperature**2", "self.temperature**2 * self.weight")
    changed.edit("workflow/lib/rib/methods/lwf.py", *lwf)
    return {"track": project.folder, "pull": folder / "clone", "accept": changed.folder}


@pytest.mark.attack("kills")
@pytest.mark.parametrize("command", ["pull", "track", "accept"])
def test_a_killed_call_is_made_up_for_by_the_next(
    projects, command, monkeypatch, tmp_path, record_property
):
    monkeypatch.setenv("RIB_ACCEPT_SAMPLE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))

    def anew(project):
        shutil.rmtree(tmp_path / "tmp", ignore_errors=True)
        (tmp_path / "tmp").mkdir()
        shutil.rmtree(project.folder, ignore_errors=True)
        shutil.copytree(projects[command], project.folder, symlinks=True)

    (tmp_path / "storage").symlink_to(projects["pull"].parent / "storage")
    whole, killed = Project(tmp_path / "whole"), Project(tmp_path / "killed")
    anew(whole)
    words, begun = ("snakemake", command, *WORDS), time.monotonic()
    run = whole.start(*words)
    assert run.wait() == 0, whole.printed()
    seconds = time.monotonic() - begun
    print(f"\n{command}, undisturbed: {seconds:.1f} s", flush=True)
    expected, planned = files_of(whole), whole.planned()
    anew(killed)
    kills = -(-KILLS * {"pull": 7, "track": 7, "accept": 6}[command] // 20)
    record_property("kills", kills)
    for completed in ordeal(killed, kills, 0.9 * seconds, 0, words, anew, seconds / 3):
        made = files_of(killed)
        differing = sorted(
            name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name)
        )
        print(
            f"{command}: came through after {completed.kills} kills, "
            f"{len(made)} files, differing: {differing}",
            flush=True,
        )
        assert differing == []
        assert not any((killed.folder / ".snakemake/locks").iterdir())
        left = [path.name for path in (tmp_path / "tmp").iterdir()]
        assert all(name.startswith("snakemake") for name in left), (
            left
        )  # Snakemake's own, among the system's
        assert killed.planned() == planned
        assert {path.name for path in tmp_path.iterdir()} == {"storage", "whole", "killed", "tmp"}
