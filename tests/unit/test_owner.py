"""Runs in one folder, and the end of their jobs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from rib import owner


def test_a_look_at_a_lock_tells_and_changes_nothing(tmp_path):
    lock = tmp_path / "a.lock"
    assert not owner.is_held(lock) and not lock.exists()
    with FileLock(lock):
        os.utime(lock, (1, 1))
        assert owner.is_held(lock) and lock.stat().st_mtime == 1
    lock.touch()
    assert not owner.is_held(lock)


def test_runs_of_a_folder_know_of_each_other_and_forget_dead_ones(tmp_path):
    host = owner.socket.gethostname()
    alive, dead = tmp_path / f"{host}.1.a.lock", tmp_path / f"{host}.2.b.lock"
    dead.touch()
    with FileLock(alive):
        assert len(owner.others(locked=True, folder=tmp_path)) == 1 and dead.exists()
        assert "process 1 " in owner.announce(True, tmp_path)[0] and not dead.exists() and alive.exists()


@pytest.mark.parametrize(
    ("first", "status"), [("signal.SIG_IGN", -signal.SIGKILL), ("signal.SIG_DFL", -signal.SIGTERM)]
)
def test_a_job_that_does_not_come_to_clean_up_is_ended(first, status):
    body = (
        "import signal, threading; from rib import owner; owner.GRACE = 0.1; "
        f"signal.signal(signal.SIGTERM, {first}); owner.end_process()"
    )
    library = {**os.environ, "PYTHONPATH": str(Path(owner.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", body], env=library, timeout=60).returncode == status
