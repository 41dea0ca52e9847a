"""The default run, killed at random moments with all its processes (make torture).

RIB_KILLS says how often, 50 where it is not set; RIB_LONGEST how many seconds a run is left alone
at most.
"""

import os
import time

from tiny.projects.kills import ordeal
from tiny.projects.project import Project, copy_project, use_make

KILLS = int(os.environ.get("RIB_KILLS", "50"))
LONGEST = float(os.environ.get("RIB_LONGEST", "40"))


def default_run(folder):
    """A copy of the project in which `make run` does the default run."""
    copy_project(folder)
    use_make(folder, {})
    return Project(folder, "fashion")


def test_the_default_run_survives_kills_with_the_same_bytes(tmp_path):
    undisturbed = default_run(tmp_path / "whole")
    begun = time.monotonic()
    run = undisturbed.start("make", "run")
    assert run.wait() == 0, undisturbed.printed()
    print(f"\nundisturbed: {time.monotonic() - begun:.0f} s", flush=True)
    expected_files = undisturbed.products()
    killed = default_run(tmp_path / "killed")
    for completed in ordeal(killed, KILLS, LONGEST, seed=0):
        files = killed.products()
        differing = [
            name
            for name in expected_files.keys() | files.keys()
            if expected_files.get(name) != files.get(name)
        ]
        print(
            f"came through after {completed.kills} kills and {completed.seconds:.0f} s: "
            f"{len(files)} files, {len(differing)} differ",
            flush=True,
        )
        assert differing == []
