"""A process of its own for input that others made and that may crash it, or take any time and memory.

The module that does the work calls `answer_requests` when it is run as a program; whoever needs an
answer opens it with `limited_process`. The process ends with the one that started it.
"""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

# Environment variables that the process gets: where programs, libraries and temporary files are,
# but not the user's passwords.
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
Ask = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    seconds: int  # of processor time
    patience: float  # seconds until the answer, the start of the process included
    memory: int  # bytes of address space, besides that of the process before its first request


class TooSlowError(ValueError):
    """A request took more time than its limit."""


class ProcessFailedError(ValueError):
    """The process crashed or ended; the message is the name of the signal, or the exit status.

    What it printed is for the authors of its libraries, and is not shown.
    """


@contextlib.contextmanager
def limited_process(module: str, limits: Limits) -> Iterator[Ask]:
    """A function that sends a request to a process of a module, and returns its answer.

    It raises TooSlowError or ProcessFailedError, and then can't be used again. The system may have
    no limit on memory; the limit on time always holds.
    """
    connection, other = Pipe()
    with other:
        numbers = (other.fileno(), limits.seconds, limits.memory)
        command = [sys.executable, "-P", "-m", module, *map(str, numbers)]
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        folders = [str(Path(folder).absolute()) for folder in sys.path if folder]
        environment["PYTHONPATH"] = os.pathsep.join(folders)
        process = subprocess.Popen(
            command, env=environment, pass_fds=[other.fileno()], stderr=subprocess.DEVNULL
        )
    with process, connection:
        try:
            yield lambda request: _ask(process, connection, request, limits)
        finally:
            process.kill()


def _ask(
    process: subprocess.Popen, connection: Connection, request: bytes, limits: Limits
) -> bytes:
    try:
        connection.send_bytes(request)
        if connection.poll(limits.patience):
            return connection.recv_bytes()
    except (EOFError, OSError):
        code = process.wait()
        if code != -signal.SIGXCPU:
            why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise ProcessFailedError(why) from None
    raise TooSlowError(f"more than {limits.seconds} s")


def answer_requests(answer: Callable[[bytes], bytes]) -> None:
    """Answer requests until the other end is closed; an error ends this process.

    For programs started by `limited_process`, whose arguments are a file descriptor and limits.
    """
    descriptor, seconds, memory = map(int, sys.argv[1:])
    os.chdir("/")  # no name within a request is that of a file in the project
    if size := _address_space():
        _limit(resource.RLIMIT_AS, size + memory)
    _limit(resource.RLIMIT_CORE, 0)
    with Connection(descriptor) as connection, contextlib.suppress(EOFError):
        while True:
            request = connection.recv_bytes()
            _limit(resource.RLIMIT_CPU, int(sum(os.times()[:2])) + 1 + seconds)
            connection.send_bytes(answer(request))


def _address_space() -> int | None:
    """Bytes of address space of this process; None if the system doesn't say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    size = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(size[1]) if size else None


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a stricter limit holds, or there is none
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
