"""Packing a folder of files into one archive.

So it is stored, hashed and shared like a published archive.
"""

import hashlib
import os
import tarfile
from pathlib import Path

from rib.base.errors import UserError
from rib.base.progress import Progress, log


def files_in(folder: Path) -> list[Path]:
    """Sorted files below a folder, without hidden ones and links to outside.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist; put the images there or correct the entry."
        )
    root = folder.resolve()
    files = []
    for path in folder.rglob("*"):
        if _is_hidden(path.relative_to(folder)):
            continue
        if path.is_file() and path.resolve().is_relative_to(root):
            files.append(path)
    if not files:
        raise UserError(
            f"the folder {folder} contains no files; put the images there or correct the entry."
        )
    return sorted(files)


def _is_hidden(path: Path) -> bool:
    """Whether a path is hidden, or a folder on the way to it is."""
    return any(name.startswith(".") for name in path.parts)


def listing(folder: Path) -> str:
    """Digest of a folder's file names and sizes.

    An edit that keeps a file's size goes unnoticed.
    """
    digest = hashlib.sha256()
    for path in files_in(folder):
        name = path.relative_to(folder).as_posix()
        digest.update(os.fsencode(f"{name}\0{path.stat().st_size}\0"))
    return digest.hexdigest()[:16]


def pack(folder: Path, target: Path, name: str) -> Path:
    """Write a folder's files to a tar that depends only on their names and bytes.

    What `files_in` leaves out is logged.

    Args:
        name: the dataset or model, for messages.

    Returns:
        The tar.
    """
    files = files_in(folder)
    _log_left_out(folder, files, name)
    with tarfile.open(target, "w") as archive:
        for path in Progress(files, desc=f"packing {name}", unit="file"):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with open(path, "rb") as file:
                archive.addfile(member, file)
    return target


def _log_left_out(folder: Path, files: list[Path], name: str) -> None:
    """Log which files and links below a folder are not among those that are packed."""
    left_out = {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    left_out.difference_update(files)
    if left_out:
        log.warning(
            "%s: left out: %d hidden files or links, the first is %s",
            name,
            len(left_out),
            min(left_out),
        )
