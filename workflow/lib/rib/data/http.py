"""HTTP downloads with curl: interrupted files are resumed, attempts retried with back-off, mirrors tried in order."""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import verify_digest
from rib.base.progress import Progress, log
from rib.base.text import redacted

ATTEMPTS = 5  # per address
BACK_OFF = 2.0  # seconds before the second attempt, doubled each time
CONNECT_TIMEOUT = 30  # seconds
STALL = 60  # seconds below 1 kB/s before an attempt is abandoned
POLL = 0.5  # seconds between two progress updates

# Exit codes of curl (see EXIT CODES in its manual) after which a retry may succeed: no host or connection, an
# interrupted transfer, a time-out, or a failure of TLS, sending or receiving.
PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
NO_RANGE = {33, 36}
HTTP_ERROR = 22


def fetch(urls: Sequence[str], part: Path, digest: str, size: int | None, what: str) -> None:
    """Fetch a file from the first mirror that has it; after a failure, `part` keeps what the next run resumes.

    Args:
        digest: pinned digest, see rib.base.files.verify_digest.
        size: in bytes; None if unknown.

    Raises:
        UserError: no URL gave the pinned file; the message says what each gave instead.
    """
    if shutil.which("curl") is None:
        raise UserError(
            f"{what}: curl is not installed, but is needed to fetch {urls[0]}; install it, then run again."
        )
    problems = []
    for url in urls:
        if (problem := _from(url, part, digest, size, what)) is None:
            return
        log.warning("%s: %s", what, redacted(f"{url}: {problem}"))
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"{what}: no URL gave the file ({'; '.join(problems)}). Check the network and run again to resume, or put the "
        "file into a folder listed under `archives` in config.yaml."
    )


def _from(url: str, part: Path, digest: str, size: int | None, what: str) -> str | None:
    """Fetch from one URL; return None on success, else what went wrong."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        begun = part.stat().st_size if part.exists() else 0
        code, status, said = (
            (0, "200", "") if begun and begun == size else _curl(url, part, size, what)
        )
        if code == 0:
            if (problem := _differs(part, digest, what)) is None:
                return None
            part.unlink()
            if not begun:
                return problem  # the whole file came from this URL, so it is a different file
            continue  # the beginning came from another URL
        problem = f"HTTP {status}" if code == HTTP_ERROR else said or f"curl ended with {code}"
        if code in NO_RANGE or status == "416":
            part.unlink(missing_ok=True)
        elif (
            code not in PASSING
            and not (code == HTTP_ERROR and status[:1] == "5")
            and status != "429"
        ):
            return problem
    return problem


def run_client(
    command: Sequence[str], seconds: float, beat: Callable[[bytes], None], **options
) -> tuple[int, str, str | None]:
    """Exit code, output and error output of a program; every few seconds, `beat` is called with its output so far.

    Raises an OSError if the program was killed because its file became too large.
    """
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=seconds)
                    if process.returncode == -signal.SIGXFSZ:
                        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                    return process.returncode, output, errors
                except subprocess.TimeoutExpired as running:
                    beat(running.output or b"")
        finally:
            process.kill()  # if it still runs, because the job is stopped


def _curl(url: str, part: Path, size: int | None, what: str) -> tuple[int, str, str]:
    """One attempt: curl's exit code, the HTTP status and curl's message."""
    command = [
        *(
            "curl",
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--proto",
            "=http,https",
            "--continue-at",
            "-",
        ),
        *(
            "--connect-timeout",
            str(CONNECT_TIMEOUT),
            "--speed-limit",
            "1000",
            "--speed-time",
            str(STALL),
        ),
        *("--write-out", "%{http_code}", "--output", str(part), "--", url),
    ]
    progress = Progress(desc=f"fetching {what}", total=size, unit="B")

    def show(output: bytes) -> None:
        if part.exists():
            progress.update(part.stat().st_size - progress.n)

    code, status, said = run_client(command, POLL, show, stderr=subprocess.PIPE)
    progress.close()
    return code, status, " ".join(said.split()).removeprefix(f"curl: ({code}) ")


def _differs(path: Path, digest: str, what: str) -> str | None:
    """How a file differs from the pinned one; None if it doesn't."""
    try:
        verify_digest(path, digest, what)
    except UserError:
        with open(path, "rb") as file:
            page = file.read(512).lstrip().startswith(b"<")
        other = f"a different file of {path.stat().st_size} bytes"
        came = "a web page (a login, a confirmation or an error)" if page else other
        return f"{came} was received instead of the pinned file"
    return None
