"""Warm starts: jobs forked from a process that has already imported the slow libraries.

Importing torch and timm takes longer than many jobs of a small grid, and importing pandas and
Matplotlib takes longer than drawing a figure. The default run takes 351 s without warm starts and
269 s with them, on two quiet cores. Jobs of one Snakemake process that need the same libraries
therefore share a server, which the first job starts. For each job, the server forks a worker that
runs the job's script with its environment, working directory and output. If a worker is killed, its
job fails; if a job is killed, its worker ends. Without a server, a job runs in its own process.

Since a server runs what it is sent, and is sent a job's environment, its socket lies in a private
folder, and each side checks that the other is of the same user before it sends or reads a byte.
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
from rib.jobs.gpu_lock import NVIDIA
from rib.jobs.parent_run import PARENT_RUN, POLL, end_process, parent_run

# Environment variable: folder of the sockets of a run whose jobs share servers, or empty.
WARM = "RIB_WARM_START"
# Modules that a server imports, by the name of a job's libraries. All jobs need Snakemake's, and
# settings, whose library, pydantic, imports most of itself when the first class is made.
NEEDED_BY_ALL = ("snakemake.script", "rib.base.settings")
PRELOADED = {
    "networks": (
        *NEEDED_BY_ALL,
        "torch",
        "timm",
        "safetensors.torch",
        "pyarrow.parquet",
        "tensorboard.summary.writer.record_writer",
    ),
    "tables": (
        *NEEDED_BY_ALL,
        "pandas",
        "pyarrow.parquet",
        "matplotlib.pyplot",
        "matplotlib.backends.backend_pdf",  # every figure is a PDF file, too
        "scipy.stats",
    ),
}
# Seconds to wait until a server listens, and in a worker until its job has sent all.
PATIENCE = 60.0
# Seconds until a job no longer waits for a worker; the server may still import its libraries.
ANSWER = 300.0
LONGEST_REQUEST = 64 << 20  # bytes; environments have 6 MB at most, and an escaped byte takes six
STARTED = b"S"  # a worker's answer when it is about to run a job's script


def delegate(script: str, libraries: str) -> None:
    """Run this process's script in a warm worker and exit with its status.

    Returns if there is no worker, so that the caller must run the script itself.

    Args:
        script: path of the script.
        libraries: key of PRELOADED.
    """
    if not _can_fork(libraries) or not os.environ.get(WARM):
        return
    run = parent_run()
    if run is None:
        return
    try:
        connection = _connect(Path(os.environ[WARM], f"{libraries}.sock"), run.pid, libraries)
    except OSError as error:
        log.warning("no warm start (%s); this job imports its libraries itself", error)
        return
    with connection, contextlib.suppress(ConnectionError):
        if not _start_worker(connection, script):
            return
        connection.settimeout(None)  # the job takes as long as it takes
        status = connection.recv(1)
        if not status:
            sys.exit("the worker process of this job was killed")
        sys.exit(status[0])


def _can_fork(libraries: str) -> bool:
    """Whether forking after the import of these libraries is safe; it is only on Linux.

    CUDA must not be initialized before a fork, and GPU jobs are long enough to import torch
    themselves.
    """
    if sys.platform != "linux":
        return False
    return libraries != "networks" or not NVIDIA.exists()


def _start_worker(connection: socket.socket, script: str) -> bool:
    """Send a job's script, surroundings and output to a server; return whether a worker runs it."""
    job = {"script": script, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    request = f"{json.dumps(job)}\n"
    stdout_and_stderr = [1, 2]
    connection.settimeout(ANSWER)
    try:
        socket.send_fds(connection, [b" "], stdout_and_stderr)  # with the first byte
        connection.sendall(request.encode())
        answer = connection.recv(1)
    except TimeoutError:
        log.warning(
            "no warm start (the server does not answer); this job imports its libraries itself"
        )
        return False
    return answer == STARTED


def _connect(path: Path, owner: int, libraries: str) -> socket.socket:
    """Connect to the owner's server, starting it if necessary.

    Args:
        path: the server's socket.
        owner: process id of the Snakemake process.
        libraries: key of PRELOADED.

    Raises:
        OSError: This user has no server to itself.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(path.parent):
        raise PermissionError(f"{path.parent} is a link, or others can enter it; remove it")
    # Not rib.base.locks: where a file system has no locks that ends the job with a UserError, but a
    # job can do without a warm start. Here the lock raises an OSError, as all else that fails.
    lock = FileLock(path.with_suffix(".lock"), timeout=PATIENCE, fallback_to_soft=False)
    with lock:  # jobs that start together start one server
        connection = _connection(path)
        if connection is not None:
            return connection
        path.unlink(missing_ok=True)  # of a killed server
        server = _start_server(path, owner, libraries)
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < deadline:
            connection = _connection(path)
            if connection is not None:
                return connection
            time.sleep(0.02)
    raise ConnectionError(f"no server listens at {path}")


def _start_server(path: Path, owner: int, libraries: str) -> subprocess.Popen[bytes]:
    """Start a process that serves (see `serve`) and outlives this one."""
    code = "import sys; from rib.jobs.fork_server import serve; serve(*sys.argv[1:])"
    library_folder = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(owner), libraries],
        env={**os.environ, "PYTHONPATH": str(library_folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _connection(path: Path) -> socket.socket | None:
    """Connect to a server of this user; None if none listens.

    Raises:
        OSError: The server is another user's, or cannot be reached.
    """
    connection = socket.socket(socket.AF_UNIX)
    # A stopped server may have a full queue. With settimeout, a busy one's would be refused at
    # once.
    seconds_and_microseconds = struct.pack("ll", round(PATIENCE), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds_and_microseconds)
    try:
        connection.connect(str(path))
        if not _same_user(connection):
            raise PermissionError(f"{path} is another user's; remove it")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError:
        connection.close()
        raise
    return connection


def _same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _process_id, user, _group = struct.unpack("iII", credentials)
    return bool(user == os.geteuid())


def serve(path: str, owner: str, libraries: str) -> None:
    """Fork a worker for each job until the owner ends; return if another server has the socket.

    Args:
        path: where the socket shall be.
        owner: a process id.
        libraries: key of PRELOADED.
    """
    # The server ends when the run ends, not on a signal; finished workers leave no zombies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        mask_before = os.umask(0o177)  # also where folders have no modes, nobody else may connect
        try:
            listener.bind(path)
        except OSError:
            return
        os.umask(mask_before)
        listener.listen(128)
        for name in PRELOADED[libraries]:
            importlib.import_module(name)
        listener.settimeout(POLL)
        while psutil.pid_exists(int(owner)):
            with contextlib.suppress(TimeoutError):
                _accept_job(listener)
    shutil.rmtree(Path(path).parent, ignore_errors=True)


def _accept_job(listener: socket.socket) -> None:
    """Wait for a job to connect, and fork a worker for it; only the server returns.

    Raises:
        TimeoutError: No job has connected within the listener's time limit.
    """
    connection, _ = listener.accept()
    if _same_user(connection):
        is_worker = os.fork() == 0
        if is_worker:
            try:
                listener.close()
                _work(connection)
            finally:  # a worker must never continue as a server
                os._exit(1)
    connection.close()


def _work(connection: socket.socket) -> None:
    """Take over a job's environment, run its script and report its status. Never returns.

    The status, one byte, is all that is sent after STARTED.
    """
    status = 1
    try:
        script = _take_over(connection)
        try:
            connection.sendall(STARTED)
        except ConnectionError:  # the job is gone already, after Ctrl-C: nobody is to be told
            os._exit(status)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        sys.argv = [script]
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = _status_of(end)
    except BaseException as error:
        print_lines(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job ends when it receives the status
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(bytes([status & 255]))
        os._exit(status)


def _take_over(connection: socket.socket) -> str:
    """Take over a job's output, working directory, environment and signals.

    Returns:
        Path of the job's script.
    """
    connection.settimeout(PATIENCE)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    job = json.loads(connection.makefile("rb").readline(LONGEST_REQUEST))
    connection.settimeout(None)
    for number, descriptor in enumerate(descriptors, start=1):  # 1 and 2: stdout and stderr
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(job["folder"])
    # Without the parent run, so that the script, which calls `delegate`, runs here.
    job["environment"].pop(PARENT_RUN, None)
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    script: str = job["script"]
    return script


def _status_of(end: SystemExit) -> int:
    """The exit status of a process that ends with this exception."""
    if isinstance(end.code, int):
        return end.code
    if end.code is None:
        return 0
    return 1


def _end_with(connection: socket.socket) -> None:
    """End this process, as Snakemake would, when the job that waits for it is gone."""
    with contextlib.suppress(ConnectionResetError):  # it was killed before it had read STARTED
        connection.recv(1)  # nothing comes; returns when the connection is closed
    end_process()
