"""Runs in one folder, and the end of their jobs."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from rib.jobs import parent_run


def test_asking_whether_a_lock_is_held_changes_nothing(tmp_path):
    lock = tmp_path / "a.lock"
    assert not parent_run.is_held(lock) and not lock.exists()
    with FileLock(lock):
        os.utime(lock, (1, 1))
        assert parent_run.is_held(lock) and lock.stat().st_mtime == 1
    lock.touch()
    assert not parent_run.is_held(lock)


def test_runs_of_a_folder_know_of_each_other_and_forget_dead_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alive, dead = (
        parent_run.RUNS / f"{socket.gethostname()}.{name}.lock" for name in ("1.a", "2.b")
    )
    dead.parent.mkdir(parents=True)
    dead.touch()
    with FileLock(alive):
        assert len(parent_run.other_active_runs(files_are_locked=True)) == 1 and dead.exists()
        assert "process 1 " in parent_run.announce(True)[0] and not dead.exists() and alive.exists()


def test_a_named_pipe_in_place_of_a_lock_blocks_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.lock")
    body = (
        "import sys; from pathlib import Path; "
        "from rib.jobs.parent_run import is_held; print(is_held(Path(sys.argv[1])))"
    )
    library = {**os.environ, "PYTHONPATH": str(Path(parent_run.__file__).parents[2])}
    command = [sys.executable, "-c", body, tmp_path / "a.lock"]
    assert (
        subprocess.run(command, env=library, timeout=20, capture_output=True, text=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize("name", ["a.lock", ".lock", "a.b.lock"])
def test_files_among_the_registrations_that_are_none_are_ignored(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    parent_run.RUNS.mkdir(parents=True)
    (parent_run.RUNS / name).touch()
    assert parent_run.announce(True) == [] and (parent_run.RUNS / name).exists()


@pytest.mark.parametrize(
    ("first", "status"), [("signal.SIG_IGN", -signal.SIGKILL), ("signal.SIG_DFL", -signal.SIGTERM)]
)
def test_a_job_that_does_not_clean_up_is_ended(first, status):
    body = (
        "import signal, threading; from rib.jobs import parent_run; parent_run.GRACE = 0.1; "
        f"signal.signal(signal.SIGTERM, {first}); parent_run.end_process()"
    )
    library = {**os.environ, "PYTHONPATH": str(Path(parent_run.__file__).parents[2])}
    assert (
        subprocess.run([sys.executable, "-c", body], env=library, timeout=60).returncode == status
    )
