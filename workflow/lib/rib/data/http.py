"""HTTP downloads with curl, which resume interrupted files."""

import errno
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.progress import Progress

ATTEMPTS = 5  # per address
BACK_OFF = 2.0  # seconds before the second attempt, doubled each time
CONNECT_TIMEOUT = 30  # seconds
STALL = 60  # seconds below 1 kB/s before an attempt is abandoned
POLL = 0.5  # seconds between two progress updates
# Seconds after which an address without any answer is given up where there are others. With the
# time that a client needs to start and end, it is at most 10.
SECONDS_TO_ANSWER = 9.0

# Exit codes of curl (see EXIT CODES in its manual) after which a retry may succeed: no host or
# connection, an interrupted transfer, a time-out, or a failure of TLS, sending or receiving.
PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
NO_RANGE = {33, 36}
HTTP_ERROR = 22
STOPPED = -1  # of a curl that was stopped here
NO_STATUS = "000"
OUT_OF_RANGE = "416"
TOO_MANY_REQUESTS = "429"


@dataclass(frozen=True)
class CurlExit:
    """How one call of curl ended."""

    code: int  # 0 if it succeeded
    http_status: str
    message: str

    @property
    def problem(self) -> str:
        """What went wrong, if the code is not 0."""
        if self.code == HTTP_ERROR:
            return f"HTTP {self.http_status}"
        return self.message or f"curl ended with {self.code}"

    @property
    def has_answer(self) -> bool:
        """Whether a server answered the request; one that only names another address did not."""
        is_redirection = self.http_status.startswith("3")
        return self.http_status != NO_STATUS and not is_redirection

    @property
    def is_without_range(self) -> bool:
        """Whether the server can't continue the file where the partial file ends."""
        return self.code in NO_RANGE or self.http_status == OUT_OF_RANGE

    @property
    def is_passing(self) -> bool:
        """Whether a retry may succeed."""
        is_server_error = self.code == HTTP_ERROR and self.http_status.startswith("5")
        is_refused_for_now = self.http_status == TOO_MANY_REQUESTS
        return self.code in PASSING or is_server_error or is_refused_for_now


@dataclass(frozen=True)
class Transfer:
    """A file to fetch from one address."""

    url: str
    partial_file: Path  # where it is written; after a failure, it keeps what the next run resumes
    size: int | None  # in bytes, None if unknown
    largest: int | None  # bytes that the file may have, None for any number
    # after which an address without any answer is given up; math.inf to try it ATTEMPTS times
    seconds_to_answer: float

    @property
    def is_exceeded(self) -> bool:
        """Whether more bytes have arrived than the file may have."""
        return self.largest is not None and _size_of(self.partial_file) > self.largest


class _ClientStoppedError(Exception):
    """A client was stopped; the message says why."""


def fetch(transfer: Transfer, problem_with: Callable[[Path], str | None], name: str) -> None:
    """Fetch a file from one address, resuming what an earlier call fetched of it.

    Args:
        transfer: what to fetch.
        problem_with: says what is wrong with a file that was fetched, or None.
        name: the dataset or model, for the log.

    Raises:
        UserError: the address did not give the file; the message is what went wrong at last.
    """
    if shutil.which("curl") is None:
        raise UserError("curl is not installed, but is needed to fetch it; install it")
    partial_file = transfer.partial_file
    partial_file.parent.mkdir(parents=True, exist_ok=True)
    # An address that has answered once is worth waiting for.
    is_patient = math.isinf(transfer.seconds_to_answer)
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt > 0:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        if transfer.is_exceeded:  # what an earlier call left is too long to be of this file
            partial_file.unlink()
        bytes_before = _size_of(partial_file)
        is_complete = bytes_before > 0 and bytes_before == transfer.size
        if not is_complete:
            ended = _curl(transfer, name, is_patient)
            is_patient = is_patient or ended.has_answer
            if ended.code != 0:
                problem = ended.problem
                if ended.is_without_range:  # the next attempt starts from the beginning
                    partial_file.unlink(missing_ok=True)
                    continue
                may_succeed_later = ended.is_passing and is_patient
                if not may_succeed_later:
                    break
                continue
        partial_file.touch()  # curl may write none if the server sent no bytes
        difference = problem_with(partial_file)
        if difference is None:
            return
        problem = difference
        partial_file.unlink()
        if bytes_before == 0:  # all bytes came from this address, so it has a different file
            break
        # Otherwise the beginning may have come from another one, so the file is fetched again.
    raise UserError(problem)


def _size_of(file: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def run_client(
    command: Sequence[str], seconds: float, report: Callable[[bytes], None], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and report its output so far every few seconds.

    Args:
        command: the program and its arguments.
        seconds: time between two reports.
        report: called with the output so far, in bytes.
        options: further arguments of subprocess.Popen.

    Raises:
        OSError: the program was killed because its file became too large.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=seconds)
                    break
                except subprocess.TimeoutExpired as still_running:
                    report(still_running.output or b"")
        finally:
            process.kill()  # if it still runs, because the job is stopped
    if process.returncode == -signal.SIGXFSZ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _curl(transfer: Transfer, name: str, is_patient: bool) -> CurlExit:
    """One attempt to fetch with curl the bytes of a file that the partial file lacks.

    Args:
        name: the dataset or model, for the log.
        is_patient: whether bytes may arrive later than after transfer.seconds_to_answer.

    Returns:
        How curl ended, or that it was stopped here.
    """
    partial_file = transfer.partial_file
    options = ["--fail", "--silent", "--show-error", "--location", "--proto", "=http,https"]
    options += ["--continue-at", "-"]  # resume at the end of the partial file
    options += ["--connect-timeout", str(CONNECT_TIMEOUT)]
    options += ["--speed-limit", "1000", "--speed-time", str(STALL)]
    options += ["--write-out", "%{http_code}", "--output", str(partial_file)]
    bytes_before = _size_of(partial_file)
    progress = Progress(
        desc=f"fetching {name}", total=transfer.size, unit="B", done_before=bytes_before
    )
    started = time.monotonic()

    def check(output: bytes) -> None:
        """Show the progress; stop curl if it gets too many bytes, or none for too long."""
        size = _size_of(partial_file)
        progress.update(size - progress.n)
        if transfer.is_exceeded:
            raise _ClientStoppedError("more bytes were sent than the file has")
        limit = math.inf if is_patient else transfer.seconds_to_answer
        if size == bytes_before and time.monotonic() - started > limit:
            raise _ClientStoppedError(f"no answer within {limit:g} s")

    try:
        ended = run_client(
            ["curl", *options, "--", transfer.url], POLL, check, stderr=subprocess.PIPE
        )
    except _ClientStoppedError as reason:
        if transfer.is_exceeded:
            partial_file.unlink()
        return CurlExit(code=STOPPED, http_status=NO_STATUS, message=str(reason))
    finally:
        progress.close()
    message = " ".join(ended.stderr.split()).removeprefix(f"curl: ({ended.returncode}) ")
    return CurlExit(code=ended.returncode, http_status=ended.stdout, message=message)
