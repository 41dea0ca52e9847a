"""Another user of the same machine."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NOBODY = 65534
# Before a command: root then needs permissions as everybody does.
WITHOUT_OVERRIDE = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second user")


def as_nobody(body: str, folder: Path) -> subprocess.Popen:
    """Start Python code in a folder as user `nobody`, for a minute at most.

    It starts there whoever may enter the folders above.
    """
    become_nobody = (
        f"os.chdir({str(folder)!r}); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    )
    code = (
        "import fcntl, os, signal, socket, time\n"
        f"signal.alarm(60)\n{become_nobody}\n{textwrap.dedent(body)}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def give_to_nobody(folder: Path) -> None:
    """Make a folder that belongs to `nobody`, closed to others, like a private one."""
    folder.mkdir(mode=0o700, parents=True)
    os.chown(folder, NOBODY, NOBODY)
