"""Snakemake and DVC in a fork of a process that has imported them.

This saves seconds of processor time per call. Snakemake's servers of warm starts are forked there,
too, one per call and kind, as the call's first jobs would start them. Runs from a new process, as
users start them, are those of `Project.run` and `Project.start`.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

LIMIT = 600  # seconds that a call may take
WARM = {
    "networks": ("torch", "timm", "safetensors.torch"),
    "tables": ("pyarrow.parquet", "pandas", "matplotlib.pyplot"),
}
IMPORTED = {"snakemake": sum(WARM.values(), ()), "dvc": ("dvc.repo",)}


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
        server = _server(program)
        print(json.dumps(request), file=server.stdin, flush=True)
        return int(server.stdout.readline()), printed.read()


@cache
def _server(program: str) -> subprocess.Popen:
    # -P: modules beside this one have names of plugins
    command = [sys.executable, "-P", __file__, program]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # it ends with its input
    return server


def serve(program: str) -> None:
    """Fork a process for each call that a line of stdin asks for, and print its exit status."""
    main = importlib.import_module(f"{program}.cli").main
    for name in IMPORTED[program]:
        importlib.import_module(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["--help"])  # imports plugins and commands
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(**request)
            sys.argv = [program, *request["words"]]
            sys.exit(main(request["words"]))
        warm_servers = []
        if program == "snakemake" and "-n" not in request["words"]:
            warm_servers = list(_warm_servers(child, request))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for warm_server in warm_servers:
            os.waitpid(warm_server, 0)
        print(status, flush=True)


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
    serve(sys.argv[1])
