"""Jobs end with their run, and know which locks are held."""

import os
import signal
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
