"""Warm starts: jobs forked from a process that has already imported the slow libraries.

Importing torch and timm takes longer than many jobs of a small grid, and importing pandas and Matplotlib takes longer
than drawing a figure. Jobs of one Snakemake process that need the same libraries therefore share a server, which the
first job starts. For each job, the server forks a worker that runs the job's script with its environment, working
directory and output. If a worker is killed, its job fails; if a job is killed, its worker ends. Without a server, a job
runs in its own process. Since a server runs what it is sent, and is sent a job's environment, its socket lies in a
private folder, and each side checks that the other is of the same user before it sends or reads a byte.
"""

import contextlib
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from filelock import FileLock

from rib.base.files import is_private
from rib.base.progress import log, print_lines
from rib.jobs.parent_run import PARENT_RUN, POLL, end_process, parent_run

WARM = "RIB_WARM_START"  # environment variable: folder of the sockets of a run whose jobs share servers, or empty
PRELOADED = {
    "networks": (
        "torch",
        "timm",
        "safetensors.torch",
        "pyarrow.parquet",
        "tensorboard.summary.writer.record_writer",
    ),
    "tables": ("pandas", "pyarrow.parquet", "matplotlib.pyplot"),
}
# CUDA must not be initialized before a fork, and GPU jobs are long enough to import torch themselves.
NVIDIA = Path("/dev/nvidiactl")
PATIENCE = (
    60.0  # seconds to wait until a server listens, and in a worker until its job has sent all
)
ANSWER = 300.0  # seconds until a job no longer waits for a worker; the server may still import its libraries
LONGEST_REQUEST = 64 << 20  # bytes; environments have 6 MB at most, and an escaped byte takes six
STARTED = b"S"


def delegate(script: str, libraries: str) -> None:
    """Run this process's script in a warm worker and exit with its status; return if the caller must run it itself."""
    # Forking after these imports is safe only on Linux.
    unsafe = sys.platform != "linux" or (libraries == "networks" and NVIDIA.exists())
    if unsafe or not os.environ.get(WARM) or (run := parent_run()) is None:
        return
    try:
        connection = _connect(Path(os.environ[WARM], f"{libraries}.sock"), run.pid, libraries)
    except OSError as error:
        log.warning("no warm start (%s); this job imports its libraries itself", error)
        return
    with connection, contextlib.suppress(ConnectionError):
        request = json.dumps(
            {"script": script, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        )
        connection.settimeout(ANSWER)
        try:
            socket.send_fds(connection, [b" "], [1, 2])  # with the first byte
            connection.sendall(f"{request}\n".encode())
            answer = connection.recv(1)
        except TimeoutError:
            log.warning(
                "no warm start (the server does not answer); this job imports its libraries itself"
            )
            return
        if answer != STARTED:
            return
        connection.settimeout(None)  # the job takes as long as it takes
        status = connection.recv(1)
        sys.exit(status[0] if status else "the worker process of this job was killed")


def _connect(path: Path, owner: int, libraries: str) -> socket.socket:
    """Connect to the owner's server, starting it if necessary; raise an OSError if this user has none to itself."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(path.parent):
        raise PermissionError(f"{path.parent} is a link, or others can enter it; remove it")
    lock = FileLock(path.with_suffix(".lock"), timeout=PATIENCE, fallback_to_soft=False)
    with lock:  # jobs that start together start one server
        if connection := _connection(path):
            return connection
        path.unlink(missing_ok=True)  # of a killed server
        serving = "import sys; from rib.jobs.fork_server import serve; serve(*sys.argv[1:])"
        command = [sys.executable, "-c", serving, str(path), str(owner), libraries]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        server, deadline = (
            subprocess.Popen(command, env=environment, **quiet),
            time.monotonic() + PATIENCE,
        )
        while server.poll() is None and time.monotonic() < deadline:
            if connection := _connection(path):
                return connection
            time.sleep(0.02)
    raise ConnectionError(f"no server listens at {path}")


def _connection(path: Path) -> socket.socket | None:
    """Connect to a server of this user; None if none listens."""
    connection = socket.socket(socket.AF_UNIX)
    # A stopped server may have a full queue. With settimeout, a busy one's would be refused at once.
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", round(PATIENCE), 0)
    )
    try:
        connection.connect(str(path))
        if not _same_user(connection):
            raise PermissionError(f"{path} is another user's; remove it")
    except OSError as error:
        connection.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return None
        raise
    return connection


def _same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this user."""
    _, user, _ = struct.unpack(
        "iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    return user == os.geteuid()


def serve(path: str, owner: str, libraries: str) -> None:
    """Fork a worker for each job until the owner, a process id, ends; return if another server has the socket."""
    # The server ends when the run ends, not on a signal; finished workers leave no zombies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        mask = os.umask(0o177)  # also where folders have no modes, nobody else may connect
        try:
            listener.bind(path)
        except OSError:
            return
        os.umask(mask)
        listener.listen(128)
        for name in PRELOADED[libraries]:
            importlib.import_module(name)
        listener.settimeout(POLL)
        while psutil.pid_exists(int(owner)):
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                if _same_user(connection) and os.fork() == 0:
                    try:
                        listener.close()
                        _work(connection)
                    finally:  # a worker must never continue as a server
                        os._exit(1)
                connection.close()
    shutil.rmtree(Path(path).parent, ignore_errors=True)


def _work(connection: socket.socket) -> None:
    """Take over a job's environment, run its script and report its status. Never returns."""
    status = 1
    try:
        connection.settimeout(PATIENCE)
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        job = json.loads(connection.makefile("rb").readline(LONGEST_REQUEST))
        connection.settimeout(None)
        for number, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(
            {key: value for key, value in job["environment"].items() if key != PARENT_RUN}
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        try:
            connection.sendall(STARTED)
        except ConnectionError:  # the job is gone already, after Ctrl-C: nobody is to be told
            os._exit(status)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        sys.argv = [job["script"]]
        runpy.run_path(job["script"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        print_lines(f"{type(error).__name__}: {error}", file=sys.stderr)
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
