"""Warm starts: jobs forked from a process that has already imported the slow libraries.

Importing torch and timm takes longer than many jobs of a small grid, and importing pandas and Matplotlib takes longer
than drawing a figure. Jobs of one Snakemake process that need the same libraries therefore share a server, which the
first job starts. For each job, the server forks a worker that runs the job's script with its environment, working
directory and output. If a worker is killed, its job fails; if a job is killed, its worker ends. Without a server, a job
runs in its own process.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from rib.jobs.parent_run import PARENT_RUN, POLL, end_process, parent_run

WARM = "RIB_WARM_START"  # environment variable: set if the jobs of a Snakemake process share a server
PRELOADED = {
    "networks": ("torch", "timm", "safetensors.torch", "pyarrow.parquet"),
    "tables": ("pandas", "pyarrow.parquet", "matplotlib.pyplot"),
}
# CUDA must not be initialized before a fork, and GPU jobs are long enough to import torch themselves.
NVIDIA = Path("/dev/nvidiactl")
PATIENCE = 60.0  # seconds to wait until a server listens
STARTED = b"S"


def delegate(script: str, libraries: str) -> None:
    """Run this process's script in a warm worker and exit with its status; return if the caller must run it itself."""
    # Forking after these imports is safe only on Linux.
    if sys.platform != "linux" or not os.environ.get(WARM) or (libraries == "networks" and NVIDIA.exists()):
        return
    run = parent_run()
    if run is None or (connection := _connect(run.pid, libraries)) is None:
        return
    with connection:
        request = json.dumps({"script": script, "folder": str(Path.cwd()), "environment": dict(os.environ)})
        socket.send_fds(connection, [b" "], [1, 2])  # with the first byte
        connection.sendall(f"{request}\n".encode())
        with contextlib.suppress(ConnectionError):
            if connection.recv(1) != STARTED:
                return
            status = connection.recv(1)
            sys.exit(status[0] if status else "the worker process of this job was killed")


def _connect(owner: int, libraries: str) -> socket.socket | None:
    """Connect to the owner's server, starting it if necessary; None if it does not listen."""
    path = Path(f"work/warm-{libraries}-{owner}.sock")
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        serving = "import sys; from rib.jobs.fork_server import serve; serve(*sys.argv[1:])"
        command = [sys.executable, "-c", serving, str(path), str(owner), libraries]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen(command, env=environment, **quiet)
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(50):  # the socket is there a moment before the server listens
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            time.sleep(0.02)
    return None


def serve(path: str, owner: str, libraries: str) -> None:
    """Fork a worker for each job until the owner, a process id, ends; return if another server has the socket."""
    # The server ends when the run ends, not on a signal; finished workers leave no zombies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError:
            return
        try:
            listener.listen(128)
            for name in PRELOADED[libraries]:
                importlib.import_module(name)
            listener.settimeout(POLL)
            while psutil.pid_exists(int(owner)):
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    if os.fork() == 0:
                        try:
                            listener.close()
                            _work(connection)
                        finally:  # a worker must never continue as a server
                            os._exit(1)
                    connection.close()
        finally:
            Path(path).unlink(missing_ok=True)


def _work(connection: socket.socket) -> None:
    """Take over a job's environment, run its script and report its status. Never returns."""
    status = 1
    try:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        job = json.loads(connection.makefile("rb").readline())
        for number, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update({key: value for key, value in job["environment"].items() if key != PARENT_RUN})
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        connection.sendall(STARTED)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        sys.argv = [job["script"]]
        runpy.run_path(job["script"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job ends when it receives the status
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(bytes([status & 255]))
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process, as Snakemake would, when the job that waits for it is gone."""
    with contextlib.suppress(ConnectionResetError):  # it was killed before it had read STARTED
        connection.recv(1)  # nothing comes; returns when the connection is closed
    end_process()
