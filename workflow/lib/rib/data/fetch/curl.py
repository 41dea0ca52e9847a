"""Download a file with the program curl; an interrupted download continues."""

import errno
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from rib.base.errors import UserError
from rib.base.progress import Progress

CONNECT_TIMEOUT = 10  # seconds
STALL = 60  # seconds below 1 kB/s before curl gives up
PAUSE = 1.0  # seconds before an interrupted transfer continues
POLL = 0.5  # seconds between looks at the file's size

# Exit codes of curl (EXIT CODES in its manual) after which the same call may succeed later: no host
# or connection, interrupted transfer, time-out, or failure of TLS, sending or receiving.
PASSING_CODES = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
PASSING_STATUSES = ("408", "429", "5")  # beginnings of HTTP statuses that may pass
HTTP_ERROR = 22
NOT_WRITTEN = 23
NO_RANGES = 33
OUT_OF_RANGE = "416"


class PassingError(UserError):
    """A URL did not give the file, but may give it later."""


def fetch(url: str, file: Path, largest: int | None, what: str) -> None:
    """Fetch a file over HTTP or HTTPS; bytes from an earlier call are not fetched again.

    An interrupted transfer continues as long as it grows. The caller must check whether the bytes
    are right.

    Args:
        url: passed to curl through a pipe, because it may contain secrets and process lists are
            public.
        file: output; after an error it keeps the bytes so far.
        largest: most bytes of the file; None for no limit.
        what: the dataset or model, for the log.

    Raises:
        PassingError: the server can't be reached, is overloaded or broke off.
        UserError: the server lacks the file or sends more bytes, or curl is not installed.
        OSError: the file can't be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as locked_file:
        # curl inherits this lock: if a job is killed but its curl runs on, the next job waits.
        fcntl.flock(locked_file, fcntl.LOCK_EX)
        if largest is not None and file.stat().st_size > largest:
            locked_file.truncate(0)  # another file's bytes
        most_bytes = file.stat().st_size
        while True:
            code, status, message = _call(url, file, largest, what, locked_file)
            # Out of range: the file is complete.
            if code == 0 or status == OUT_OF_RANGE:
                return
            # A server that can't continue a file must send it from the beginning.
            if code == NO_RANGES and file.stat().st_size > 0:
                locked_file.truncate(0)
                continue
            if code not in PASSING_CODES and not status.startswith(PASSING_STATUSES):
                raise UserError(message)
            if file.stat().st_size <= most_bytes:
                raise PassingError(message)
            most_bytes = file.stat().st_size
            time.sleep(PAUSE)


def _call(
    url: str, file: Path, largest: int | None, what: str, locked_file: IO[bytes]
) -> tuple[int, str, str]:
    """Run curl once; return its exit code, HTTP status (`000` without one) and a message.

    Args:
        file: curl appends to it.
        largest: most bytes of the file; None for no limit.
        what: the dataset or model, for the display of progress.
        locked_file: `file`, opened to append. curl inherits it and so keeps the lock if this
            process is killed but curl runs on.

    Raises:
        UserError: the server sends more bytes (the file is then emptied), or curl is not installed.
        OSError: the file can't be written.
    """
    # curl's --retry would cut the file back to where the call began.
    command = ["curl", "--silent", "--show-error", "--fail", "--location", "--globoff"]
    command += ["--proto", "=http,https", "--connect-timeout", str(CONNECT_TIMEOUT)]
    command += ["--speed-limit", "1000", "--speed-time", str(STALL)]
    command += ["--continue-at", "-", "--output", str(file), "--write-out", "%{http_code}"]
    quoted_url = url.replace("\\", "\\\\").replace('"', '\\"')
    config: str | None = f'url = "{quoted_url}"\n'
    try:
        process = subprocess.Popen(
            [*command, "--config", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[locked_file.fileno()],
        )
    except FileNotFoundError as error:
        raise UserError("curl is not installed, but is needed to fetch it; install it") from error
    progress = Progress(
        desc=f"fetching {what}", total=largest, unit="B", done_before=file.stat().st_size
    )
    is_too_long = False
    with process, progress:
        try:
            while not is_too_long:
                try:
                    status, errors = process.communicate(config, timeout=POLL)
                    break
                except subprocess.TimeoutExpired:
                    config = None  # curl has read it
                size = file.stat().st_size
                progress.update(size - progress.n)
                is_too_long = largest is not None and size > largest
        finally:
            process.kill()  # if the job is stopped
    if is_too_long:
        locked_file.truncate(0)
        raise UserError("more bytes were sent than the file has")
    code = process.returncode
    if code in (NOT_WRITTEN, -signal.SIGXFSZ):
        number = errno.ENOSPC if code == NOT_WRITTEN else errno.EFBIG
        raise OSError(number, os.strerror(number), str(file))
    message = " ".join(errors.split()).removeprefix(f"curl: ({code}) ")
    if code == HTTP_ERROR:
        message = f"HTTP {status}"
    return code, status, message or f"curl ended with {code}"
