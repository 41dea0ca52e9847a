"""Folders that only this user can enter, on machines and in projects that several people share."""

import os
import stat
from pathlib import Path


def is_private(folder: Path) -> bool:
    """Whether a path is a folder, not a link to one, that belongs to this user and is closed to everybody else."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
