"""Warm starts: the same bytes as cold ones, and no process outlives its job or its run."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from rib.jobs import fork_server as warm
from rib.jobs import parent_run as owner
from tiny.waiting import wait_until

LIBRARY = Path(warm.__file__).parents[2]


@pytest.mark.slow
def test_cold_starts_give_the_same_bytes(finished, project):
    project.snakemake(config=("compute={warm_start: false}", "targets=[red]", "methods=[ft,lwf]"))
    cold, warmed = project.products(), finished[0].products()
    runs = [name for name in cold if name.startswith("results/")]
    assert len(runs) > 20 and [name for name in runs if cold[name] != warmed[name]] == []


SHOW_LIMIT = """
from snakemake import cli
from snakemake.scheduling.job_scheduler import JobScheduler as Scheduler
begin = Scheduler.__init__
Scheduler.__init__ = lambda self, *given: (begin(self, *given), print("limited:", self.job_rate_limiter is not None))[0]
cli.main({arguments!r})
"""


@pytest.mark.parametrize(("given", "limited"), [([], False), (["--max-jobs-per-timespan", "90/1s"], True)])
def test_jobs_start_as_fast_as_they_can_unless_the_user_limits_them(finished_copy, given, limited):
    arguments = ["--force", "reports/tiny/tables/training.csv", *given, "--config", "family=tiny", "catalog=mine"]
    printed = finished_copy.run(sys.executable, "-c", SHOW_LIMIT.format(arguments=arguments))
    assert f"limited: {limited}" in printed


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script that delegates itself to one that has torch or tables' libraries, says who runs it, and does as its argument tells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(owner.PARENT_RUN, str(os.getpid()))
    monkeypatch.setenv(warm.WARM, "1")
    monkeypatch.setenv("PYTHONPATH", str(LIBRARY))
    (tmp_path / "work").mkdir()
    started = []

    def start(body, libraries="tables"):
        path = tmp_path / "script.py"
        head = f"import sys\nfrom rib.jobs.fork_server import delegate\ndelegate({str(path)!r}, {libraries!r})\n"
        path.write_text(head + textwrap.dedent(body))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([sys.executable, path], **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
    sockets = {f"work/warm-{libraries}-{os.getpid()}.sock" for libraries in warm.PRELOADED}
    for process in psutil.process_iter(["cmdline"]):
        if sockets.intersection(process.info["cmdline"] or []):
            process.kill()


def test_a_worker_has_the_libraries_and_hands_back_output_and_status(script, monkeypatch):
    body = "import os\nprint('torch' in sys.modules, os.environ.get('MINE'), flush=True)\nsys.exit(7)\n"
    monkeypatch.setenv("MINE", "kept")
    for _ in range(2):  # the second time, the socket and the server are still there
        process = script(body, "networks")
        assert process.communicate(timeout=60)[0] == "True kept\n" and process.returncode == 7


def test_jobs_that_draw_have_a_server_without_torch(script):
    body = "print([name in sys.modules for name in ('torch', 'pandas', 'matplotlib.pyplot')], flush=True)\n"
    process = script(body)
    assert process.communicate(timeout=60)[0] == "[False, True, True]\n" and process.returncode == 0


def test_a_killed_job_takes_its_worker_along(script):
    process = script("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    worker = int(process.stdout.readline())
    assert worker != process.pid and psutil.pid_exists(worker)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not psutil.pid_exists(worker))


@pytest.mark.parametrize("unread", [b"", warm.STARTED])
def test_a_worker_ends_whatever_its_killed_job_had_read(monkeypatch, unread):
    """A socket that is closed with unread data is reset, not ended."""
    ended = []
    monkeypatch.setattr(warm, "end_process", lambda: ended.append(True))
    worker, job = socket.socketpair()
    with worker:
        worker.sendall(unread)
        job.close()
        warm._end_with(worker)
    assert ended


def test_a_killed_worker_fails_its_job(script):
    process = script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert "was killed" in process.communicate(timeout=60)[0] and process.returncode == 1


def test_the_server_ends_with_its_run(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = tmp_path / "w.sock"
    code = f"from rib.jobs.fork_server import serve; serve({str(path)!r}, '{owner.pid}', 'tables')"
    server = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(LIBRARY)})
    assert wait_until(path.exists)
    owner.kill()
    owner.wait()
    server.wait(timeout=30)
    assert not path.exists()
