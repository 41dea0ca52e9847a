"""Snakemake and DVC in a fork of a process that has imported them.

This saves seconds of processor time per call. Test processes share these processes. Scripts of
Snakemake are forked, too, from one process for each call that has imported what they need (see
forked_script.py). Runs from a new process, as users start them, are those of `Project.run` and
`Project.start`.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from filelock import FileLock

LIMIT = 600  # seconds that a call may take
POLL = 0.5  # seconds between checks that the tests still run
GRACE = 5  # seconds that a script has to clean up
# What scripts need is imported once for all.
NEEDED_BY_NETWORKS = [
    "torch",
    "timm",
    "safetensors.torch",
    "tensorboard.summary.writer.record_writer",
]
NEEDED_BY_TABLES = ["pandas", "pyarrow.parquet", "scipy.stats", "pydantic"]
NEEDED_BY_FIGURES = ["matplotlib.pyplot", "matplotlib.backends.backend_pdf"]
NEEDED_BY_PAGES = ["altair", "docutils.core", "jinja2", "vl_convert"]
NEEDED_BY_SNAKEMAKE = ["smart_open"]  # when it opens the first file of a workflow
IMPORTED = {
    "snakemake": [
        *NEEDED_BY_NETWORKS,
        *NEEDED_BY_TABLES,
        *NEEDED_BY_FIGURES,
        *NEEDED_BY_PAGES,
        *NEEDED_BY_SNAKEMAKE,
    ],
    "dvc": ["dvc.repo"],
}
FORKED_SCRIPT = Path(__file__).with_name("forked_script.py")
# Environment variable: socket of the process that forks the scripts of a call of Snakemake.
SCRIPTS = "RIB_TEST_SCRIPTS"
# Environment variable: private folder of the servers' sockets, for test processes that share them.
SOCKETS = "RIB_TEST_SOCKETS"


def share(folder: Path, owner: int) -> None:
    """Share servers with this process's children, until the owner ends.

    Args:
        folder: private, for the sockets; it is removed then.
        owner: a process id.
    """
    os.environ[SOCKETS] = f"{owner}:{folder}"


def call(
    program: str, words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[int, str]:
    """Exit status of a program, and all it printed."""
    with tempfile.NamedTemporaryFile("r") as printed:
        request = {
            "words": words,
            "folder": str(folder),
            "environment": dict(environment),
            "printed": printed.name,
        }
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as stream:
            connection.connect(str(start(program)))
            print(json.dumps(request), file=stream, flush=True)
            return int(stream.readline()), printed.read()


def start(program: str) -> Path:
    """Start the server of a program unless another process did; its socket.

    Whoever connects waits until the server has imported the program.
    """
    if SOCKETS not in os.environ:
        share(Path(tempfile.mkdtemp()), os.getpid())
    owner, _, folder = os.environ[SOCKETS].partition(":")
    path = Path(folder, f"{program}.sock")
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _start_server(program, path, owner)
    return path


def _start_server(program: str, path: Path, owner: str) -> None:
    """Start the server of a program, which listens at a socket until its owner ends.

    Args:
        path: of the socket.
        owner: id of a process.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.set_inheritable(True)
        # -P: modules beside this one have names of plugins
        command = [sys.executable, "-P", __file__, program, str(listener.fileno()), owner]
        os.posix_spawn(sys.executable, command, os.environ)


def serve(program: str, listener: socket.socket, owner: int) -> None:
    """Fork a process for each connection, which runs a call, until the owner ends."""
    listener_path = listener.getsockname()
    main = importlib.import_module(f"{program}.cli").main
    for name in IMPORTED[program]:
        importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["--help"])  # imports plugins and commands
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes of connections
    listener.settimeout(POLL)
    while psutil.pid_exists(owner):
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                with connection, connection.makefile("rw") as stream:
                    status = _run(program, main, json.loads(stream.readline()))
                    print(status, file=stream, flush=True)
                os._exit(0)
            connection.close()
    shutil.rmtree(Path(listener_path).parent, ignore_errors=True)


def _run(program: str, main, request: Mapping) -> int:
    """Run a call in a fork of this process; its exit status."""
    runs_scripts = program == "snakemake" and "-n" not in request["words"]
    listener = socket.socket(socket.AF_UNIX)
    if runs_scripts:
        _, _, folder = os.environ[SOCKETS].partition(":")
        path = f"{folder}/{os.getpid()}.sock"
        listener.bind(path)
        listener.listen(128)
        request["environment"][SCRIPTS] = path
    child = os.fork()
    if child == 0:
        listener.close()
        _become(**request)
        sys.argv = [program, *request["words"]]
        if program == "snakemake":
            _fork_scripts()
        sys.exit(main(request["words"]))
    server = _serve_scripts(listener) if runs_scripts else None
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if server is not None:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        Path(path).unlink()
    listener.close()
    return status


def _become(
    words: Sequence[str], folder: str, environment: Mapping[str, str], printed: str
) -> None:
    """Give this process the folder, environment and streams of a call."""
    output = os.open(printed, os.O_WRONLY)
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.alarm(LIMIT)


def _fork_scripts() -> None:
    """Let Snakemake start forked_script.py with each script."""
    from snakemake.script import PythonScript

    # -I and -S: it needs no packages, and starts ten times as fast
    forked_script = shlex.join([sys.executable, "-I", "-S", str(FORKED_SCRIPT)])

    def execute_script(script: PythonScript, fname: str, edit: bool = False) -> None:
        script._execute_cmd("{forked_script} {fname:q}", forked_script=forked_script, fname=fname)

    PythonScript.execute_script = execute_script


def _serve_scripts(listener: socket.socket) -> int:
    """Start a process that forks each script that forked_script.py sends; its id."""
    server = os.fork()
    if server:
        return server
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes of scripts
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _run_script(connection)
            connection.close()
    finally:  # it must not go on as its parent
        os._exit(1)


def _run_script(connection: socket.socket) -> None:
    """Run a script with its job's streams, folder and environment, and send its exit status."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 2)
    job = json.loads(connection.makefile("rb").readline())
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    status = 1
    try:
        sys.argv = [job["script"]]
        runpy.run_path(job["script"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job ends when it has the status
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(bytes([status & 255]))
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process, as Snakemake would, when the job that waits for it is gone."""
    with contextlib.suppress(ConnectionResetError):
        connection.recv(1)  # nothing comes; it returns when the connection is closed
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
