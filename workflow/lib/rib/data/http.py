"""Files over HTTP, through curl: resumed where they broke off, retried with back-off, mirrors in order."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rib.io import Progress, UserError, log, verify_digest

ATTEMPTS = 5  # per address
BACK_OFF = 2.0  # seconds before the second attempt, doubled each time
CONNECT_TIMEOUT = 30  # seconds
STALL = 60  # seconds below 1 kB/s, after which an attempt is given up
POLL = 0.5  # seconds between two looks at how much has come

# Exit codes of curl (its manual, EXIT CODES) that say that another attempt may go through: host or connection not to be
# had, a transfer that broke off, a time-out, TLS or sending or receiving failed.
PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
NO_RANGE = {33, 36}
HTTP_ERROR = 22


def fetch(urls: Sequence[str], part: Path, digest: str, size: int | None, what: str) -> None:
    """Fetch a file whose digest is pinned; what came is kept in `part` for another run when this one fails.

    Args:
        urls: addresses of the same bytes, tried in this order.
        part: where to write; what an earlier run left there is gone on with.
        digest: pinned, see rib.io.verify_digest.
        size: in bytes, for the progress, None where nobody states it.
        what: what it is for, for messages.

    Raises:
        UserError: no address gave the pinned bytes; the sentence says what each gave instead.
    """
    if shutil.which("curl") is None:
        raise UserError(f"{what}: curl is not on this machine, and it fetches {urls[0]}; install it, then run again.")
    problems = []
    for url in urls:
        problem = _from(url, part, digest, size, what)
        if problem is None:
            return
        log.warning("%s: %s: %s", what, url, problem)
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"{what}: no address gave the file ({'; '.join(problems)}). Check the network and run again: what came is kept. "
        "Or put the file into a folder that `archives` in config.yaml names."
    )


def _from(url: str, part: Path, digest: str, size: int | None, what: str) -> str | None:
    """Fetch from one address; None when the pinned bytes are there, else what went wrong."""
    problem = "not tried"
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        begun = part.exists() and part.stat().st_size > 0
        if begun and part.stat().st_size == size:
            code, status, said = 0, "200", ""
        else:
            code, status, said = _curl(url, part, size, what)
        if code == 0:
            problem = _differs(part, digest, what)
            if problem is None:
                return None
            part.unlink()
            if not begun:
                return problem  # the whole file came from here: it is another one
            continue  # its beginning came from somewhere else
        problem = f"HTTP {status}" if code == HTTP_ERROR else said or f"curl ended with {code}"
        if code in NO_RANGE or status == "416":
            part.unlink(missing_ok=True)
        elif code not in PASSING and not (code == HTTP_ERROR and status[:1] == "5") and status != "429":
            return problem
    return problem


def _curl(url: str, part: Path, size: int | None, what: str) -> tuple[int, str, str]:
    """One attempt: curl's exit code, the HTTP status and what curl said."""
    command = [
        *("curl", "--fail", "--silent", "--show-error", "--location", "--proto", "=http,https", "--continue-at", "-"),
        *("--connect-timeout", str(CONNECT_TIMEOUT), "--speed-limit", "1000", "--speed-time", str(STALL)),
        *("--write-out", "%{http_code}", "--output", str(part), "--", url),
    ]
    progress = Progress(desc=f"fetching {what}", total=size, unit="B")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as curl:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status, said = curl.communicate(timeout=POLL)
                    break
                if part.exists():
                    progress.update(part.stat().st_size - progress.n)
        except BaseException:  # this job is stopped: curl must not go on
            curl.kill()
            raise
    progress.close()
    return curl.returncode, status, " ".join(said.split()).removeprefix(f"curl: ({curl.returncode}) ")


def _differs(path: Path, digest: str, what: str) -> str | None:
    """Why a file is not the pinned one, None if it is."""
    try:
        verify_digest(path, digest, what)
    except UserError:
        with open(path, "rb") as file:
            page = file.read(512).lstrip()[:1] == b"<"
        came = (
            "a web page (of a login, a confirmation or an error)"
            if page
            else f"another file of {path.stat().st_size} bytes"
        )
        return f"{came} came in place of the pinned one"
    return None
