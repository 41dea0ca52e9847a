"""Snakemake and DVC in a fork of a process that has imported them.

This saves seconds of processor time per call. Test processes share these processes. Snakemake's
servers of warm starts are forked there, too, one per call and kind, as the call's first jobs would
start them, and its scripts run in them at once, without a Python of their own that would only hand
them over (see warm_job.py). Runs from a new process, as users start them, are those of
`Project.run` and `Project.start`.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from filelock import FileLock

LIMIT = 600  # seconds that a call may take
POLL = 0.5  # seconds between checks that the tests still run
WARM = ("networks", "tables")
# What scripts need is imported once for all.
# Not read from rib.jobs.fork_server, since a server must import no library but that of a project.
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
WARM_JOB = Path(__file__).with_name("warm_job.py")
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
    child = os.fork()
    if child == 0:
        _become(**request)
        sys.argv = [program, *request["words"]]
        if program == "snakemake":
            _start_scripts_warm()
        sys.exit(main(request["words"]))
    warm_servers = []
    if program == "snakemake" and "-n" not in request["words"]:
        warm_servers = list(_warm_servers(child, request))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for warm_server in warm_servers:
        os.waitpid(warm_server, 0)
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


def _start_scripts_warm() -> None:
    """Let Snakemake start warm_job.py with each script."""
    from snakemake.script import PythonScript

    # -I and -S: it needs no packages, and starts ten times as fast
    warm_job = shlex.join([sys.executable, "-I", "-S", str(WARM_JOB)])

    def execute_script(script: PythonScript, fname: str, edit: bool = False) -> None:
        script._execute_cmd("{warm_job} {fname:q}", warm_job=warm_job, fname=fname)

    PythonScript.execute_script = execute_script


def _warm_servers(run: int, request: Mapping) -> Iterator[int]:
    """Start the servers of a run's warm starts; their process ids."""
    for libraries in WARM:
        warm_server = os.fork()
        if warm_server == 0:
            try:
                _become(**request | {"printed": os.devnull})
                sys.path.insert(0, f"{request['folder']}/workflow/lib")
                from rib.jobs.fork_server import serve

                folder = Path(f"work/warm-{os.uname().nodename}-{run}")
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                serve(f"{folder}/{libraries}.sock", str(run), libraries)
            finally:  # it must not go on as its parent
                os._exit(0)
        yield warm_server


if __name__ == "__main__":
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
