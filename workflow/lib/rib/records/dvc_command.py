"""Run DVC on its command line, the interface that it documents."""

import os
import subprocess
import sys
from pathlib import Path

from rib.base.errors import UserError
from rib.base.text import redacted

# A separate index for DVC's cache of listings: the default one may contain listings that nobody
# checked.
INDEX = Path(".dvc/tmp/rib")
# Parts of DVC's messages that would mislead here, and their replacements.
REPLACEMENTS = {
    "Use `--force` to force.": "Delete them, share them (`rib track`), or pull others:",
    "Having any troubles? Hit us up at https://dvc.org/support, we are always happy to help!": "",
}
LONGEST_MESSAGE = 1000  # characters


class DVCError(UserError):
    """DVC failed; its message in one line."""


def run_dvc(*words: str) -> str:
    """Run a command of DVC, such as `run_dvc("fetch", "data/raw/red.dvc")`; return its output.

    Raises:
        DVCError: DVC failed; its message in one line, without secrets.
    """
    lock = Path(".dvc/tmp/rwlock")
    # DVC leaves this file empty if it was killed before writing, and then can't read it.
    if lock.is_file() and lock.stat().st_size == 0:
        lock.unlink()
    completed = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        env={**os.environ, "DVC_SITE_CACHE_DIR": str(INDEX.absolute())},
        stdin=subprocess.DEVNULL,  # DVC must not ask questions
        capture_output=True,
        text=True,
        errors="replace",
    )
    if completed.returncode:
        raise DVCError(_message(completed.stderr))
    return completed.stdout


def _message(printed: str) -> str:
    """DVC's error in one line, without its advice and the secrets in URLs."""
    _, _, error = printed.rpartition("ERROR: ")
    message = " ".join(error.split())
    for text, replacement in REPLACEMENTS.items():
        message = message.replace(text, replacement)
    return redacted(message[:LONGEST_MESSAGE]).strip()
