"""HTTP downloads with curl: interrupted files are resumed, and mirrors tried in order."""

import errno
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
from rib.base.files import verify_digest
from rib.base.progress import Progress, log
from rib.base.text import redacted

ATTEMPTS = 5  # per address
BACK_OFF = 2.0  # seconds before the second attempt, doubled each time
CONNECT_TIMEOUT = 30  # seconds
STALL = 60  # seconds below 1 kB/s before an attempt is abandoned
POLL = 0.5  # seconds between two progress updates

# Exit codes of curl (see EXIT CODES in its manual) after which a retry may succeed: no host or
# connection, an interrupted transfer, a time-out, or a failure of TLS, sending or receiving.
PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
NO_RANGE = {33, 36}
HTTP_ERROR = 22
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
    def is_without_range(self) -> bool:
        """Whether the server can't continue the file where the partial file ends."""
        return self.code in NO_RANGE or self.http_status == OUT_OF_RANGE

    @property
    def is_passing(self) -> bool:
        """Whether a retry may succeed."""
        is_server_error = self.code == HTTP_ERROR and self.http_status.startswith("5")
        is_refused_for_now = self.http_status == TOO_MANY_REQUESTS
        return self.code in PASSING or is_server_error or is_refused_for_now


def fetch(
    urls: Sequence[str], partial_file: Path, digest: str, size: int | None, name: str
) -> None:
    """Fetch a file from the first mirror that has it.

    Args:
        partial_file: where the file is written; after a failure, it keeps what the next run
            resumes.
        digest: pinned digest, see rib.base.files.verify_digest.
        size: in bytes; None if unknown.
        name: the dataset or model, for messages.

    Raises:
        UserError: no URL gave the pinned file; the message says what each gave instead.
    """
    if shutil.which("curl") is None:
        raise UserError(
            f"{name}: curl is not installed, but is needed to fetch {urls[0]}; install it, then "
            "run again."
        )
    problems = []
    for url in urls:
        problem = _fetch_from(url, partial_file, digest, size, name)
        if problem is None:
            return
        log.warning("%s: %s", name, redacted(f"{url}: {problem}"))
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"{name}: no URL gave the file ({'; '.join(problems)}). Check the network and run again to "
        "resume, or put the file into a folder listed under `archives` in config.yaml."
    )


def _fetch_from(
    url: str, partial_file: Path, digest: str, size: int | None, name: str
) -> str | None:
    """Fetch from one URL; return None on success, else what went wrong at last."""
    problem = None
    for attempt in range(ATTEMPTS):
        if attempt > 0:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        bytes_before = partial_file.stat().st_size if partial_file.exists() else 0
        is_complete = bytes_before > 0 and bytes_before == size
        if not is_complete:
            ended = _curl(url, partial_file, size, name)
            if ended.code != 0:
                problem = ended.problem
                if ended.is_without_range:
                    partial_file.unlink(missing_ok=True)
                elif not ended.is_passing:
                    return problem
                continue
        problem = _difference(partial_file, digest, name)
        if problem is None:
            return None
        partial_file.unlink()
        if bytes_before == 0:  # all bytes came from this URL, so it has a different file
            return problem
        # Otherwise the beginning may have come from another URL, so the file is fetched again.
    return problem


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


def _curl(url: str, partial_file: Path, size: int | None, name: str) -> CurlExit:
    """One attempt to fetch the bytes of a file that the partial file lacks."""
    options = ["--fail", "--silent", "--show-error", "--location", "--proto", "=http,https"]
    options += ["--continue-at", "-"]
    options += ["--connect-timeout", str(CONNECT_TIMEOUT)]
    options += ["--speed-limit", "1000", "--speed-time", str(STALL)]
    options += ["--write-out", "%{http_code}", "--output", str(partial_file)]
    progress = Progress(desc=f"fetching {name}", total=size, unit="B")

    def update_progress(output: bytes) -> None:
        if partial_file.exists():
            progress.update(partial_file.stat().st_size - progress.n)

    ended = run_client(["curl", *options, "--", url], POLL, update_progress, stderr=subprocess.PIPE)
    progress.close()
    message = " ".join(ended.stderr.split()).removeprefix(f"curl: ({ended.returncode}) ")
    return CurlExit(code=ended.returncode, http_status=ended.stdout, message=message)


def _difference(path: Path, digest: str, name: str) -> str | None:
    """How a file differs from the pinned one; None if it doesn't."""
    try:
        verify_digest(path, digest, name)
    except UserError:
        with open(path, "rb") as file:
            is_web_page = file.read(512).lstrip().startswith(b"<")
        received = f"a different file of {path.stat().st_size} bytes"
        if is_web_page:
            received = "a web page (a login, a confirmation or an error)"
        return f"{received} was received instead of the pinned file"
    return None
