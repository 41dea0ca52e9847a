"""A process of its own for input that others made.

Such input may crash it, or take any time and memory.

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
    """Start a process, and yield a function that sends it a request and returns its answer.

    The function raises TooSlowError or ProcessFailedError, and then can't be used again. The system
    may have no limit on memory; the limit on time always holds.

    Args:
        module: name of the module that the process runs, and that answers.
        limits: what one request may take.
    """
    connection, connection_of_process = Pipe()
    with connection_of_process:
        process = _start(module, connection_of_process.fileno(), limits)

    def ask(request: bytes) -> bytes:
        """Send a request to the process, and return its answer."""
        return _ask(process, connection, request, limits)

    with process, connection:
        try:
            yield ask
        finally:
            process.kill()


def _start(module: str, descriptor: int, limits: Limits) -> subprocess.Popen[bytes]:
    """Start Python with a module as program, which answers requests; see `answer_requests`.

    Args:
        module: name of the module; it is found in the folders where this process finds its own.
        descriptor: file descriptor of the connection with requests and answers.
        limits: what one request may take.
    """
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    folders = [str(Path(folder).absolute()) for folder in sys.path if folder]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    arguments = [str(descriptor), str(limits.seconds), str(limits.memory)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment,
        pass_fds=[descriptor],
        stderr=subprocess.DEVNULL,
    )


def _ask(
    process: subprocess.Popen[bytes], connection: Connection, request: bytes, limits: Limits
) -> bytes:
    """Send a request and wait for the answer.

    Raises:
        TooSlowError: it took more than the limits of time.
        ProcessFailedError: the process crashed or ended.
    """
    try:
        connection.send_bytes(request)
        has_answer = connection.poll(limits.patience)
        if has_answer:
            return connection.recv_bytes()
    except (EOFError, OSError):  # the process has ended; SIGXCPU is that of its processor time
        exit_code = process.wait()
        had_no_time_left = exit_code == -signal.SIGXCPU
        if not had_no_time_left:
            raise ProcessFailedError(_describe_exit(exit_code)) from None
    raise TooSlowError(f"more than {limits.seconds} s")


def _describe_exit(exit_code: int) -> str:
    """Name of the signal that killed a process, or its exit status."""
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"


def answer_requests(answer: Callable[[bytes], bytes]) -> None:
    """Answer requests until the other end is closed; an error ends this process.

    This is what a program does that `limited_process` has started. Its command-line arguments are
    the file descriptor of the connection, seconds of processor time for each request, and bytes of
    memory for all of them.

    Args:
        answer: returns the answer to a request.
    """
    descriptor, seconds, memory = [int(argument) for argument in sys.argv[1:]]
    os.chdir("/")  # no name within a request is that of a file in the project
    size = _address_space()
    if size is not None:
        _limit(resource.RLIMIT_AS, size + memory)
    _limit(resource.RLIMIT_CORE, 0)  # no file with the memory of a crashed process
    with Connection(descriptor) as connection, contextlib.suppress(EOFError):
        while True:
            request = connection.recv_bytes()
            times = os.times()
            seconds_used = int(times.user + times.system) + 1  # rounded up
            _limit(resource.RLIMIT_CPU, seconds_used + seconds)
            connection.send_bytes(answer(request))


def _address_space() -> int | None:
    """Bytes of address space of this process; None if the system doesn't say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        return None
    return 1024 * int(match[1])


def _limit(rlimit: int, soft_limit: int) -> None:
    """Set the soft limit of a resource of this process, if the system allows it.

    Args:
        rlimit: the resource, one of `resource.RLIMIT_...`.
        soft_limit: in the unit of the resource.
    """
    # The hard limit may be lower, and then holds; or the system doesn't limit this resource.
    with contextlib.suppress(ValueError, OSError):
        _, hard_limit = resource.getrlimit(rlimit)
        resource.setrlimit(rlimit, (soft_limit, hard_limit))
