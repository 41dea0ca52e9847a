"""Handle untrusted input in a separate process with limited time and memory.

Downloaded images and fonts may crash a decoder, or keep it busy forever. The module with the
decoder calls `answer_requests` when it runs as a program; the caller opens it with
`limited_process`.
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

# Environment variables that the process gets: paths of programs, libraries and temporary files, but
# no passwords of the user.
KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
Ask = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    seconds: int  # processor time
    patience: float  # seconds of real time until the answer, including the start of the process
    memory: int  # bytes of address space on top of what the process has before its first request


class TooSlowError(ValueError):
    """A request took more time than its limit."""


class ProcessFailedError(ValueError):
    """The process crashed or ended; the message is a signal's name or the exit status.

    The output of the process is not shown: it means something only to authors of its libraries.
    """


@contextlib.contextmanager
def limited_process(module: str, limits: Limits) -> Iterator[Ask]:
    """Start a process that may crash or hang on hostile input; yield a function that asks it.

    The function sends a request and returns the answer. It raises TooSlowError or
    ProcessFailedError, and then can't be used again. Some systems can't limit memory; the time
    limit always works.

    Args:
        module: name of the module that the process runs, such as `rib.data.svg`.
    """
    connection, connection_of_process = Pipe()
    with connection_of_process:
        process = _start(module, connection_of_process.fileno(), limits)

    def ask(request: bytes) -> bytes:
        return _ask(process, connection, request, limits)

    with process, connection:
        try:
            yield ask
        finally:
            process.kill()


def _start(module: str, descriptor: int, limits: Limits) -> subprocess.Popen[bytes]:
    """Start the module with the connection's file descriptor and the limits as its arguments."""
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
    """The answer to a request; a TooSlowError or ProcessFailedError if there is none."""
    try:
        connection.send_bytes(request)
        has_answer = connection.poll(limits.patience)
        if has_answer:
            return connection.recv_bytes()
    except (EOFError, OSError):
        # The process has ended. The system sends SIGXCPU when its processor time is used up.
        exit_code = process.wait()
        had_no_time_left = exit_code == -signal.SIGXCPU
        if not had_no_time_left:
            raise ProcessFailedError(_describe_exit(exit_code)) from None
    raise TooSlowError(f"more than {limits.seconds} s")


def _describe_exit(exit_code: int) -> str:
    """`SIGSEGV` for -11, `exit status 1` for 1."""
    if exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"


def answer_requests(answer: Callable[[bytes], bytes]) -> None:
    """Answer requests with a function until the other end closes the connection.

    This is the main function of a program that `limited_process` starts. It reads three
    command-line arguments: the connection's file descriptor, seconds of processor time per request,
    and bytes of memory for all requests. An error ends this process.
    """
    descriptor, seconds, memory = [int(argument) for argument in sys.argv[1:]]
    os.chdir("/")  # relative names in a request must not find files of the project
    size = _address_space()
    if size is not None:
        _limit(resource.RLIMIT_AS, size + memory)
    _limit(resource.RLIMIT_CORE, 0)  # no core dump
    with Connection(descriptor) as connection, contextlib.suppress(EOFError):
        while True:
            request = connection.recv_bytes()
            times = os.times()
            seconds_used = int(times.user + times.system) + 1  # rounded up
            _limit(resource.RLIMIT_CPU, seconds_used + seconds)
            connection.send_bytes(answer(request))


def _address_space() -> int | None:
    """Bytes of memory that this process has mapped, before requests; None if unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"^VmSize:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        return None
    return 1024 * int(match[1])


def _limit(rlimit: int, soft_limit: int) -> None:
    """Set a soft limit, such as `resource.RLIMIT_CPU` in seconds, if the system allows it."""
    # Setting fails if the hard limit is lower (which then applies) or the system can't limit this.
    with contextlib.suppress(ValueError, OSError):
        _, hard_limit = resource.getrlimit(rlimit)
        resource.setrlimit(rlimit, (soft_limit, hard_limit))
