"""Packing a folder of files into one archive, to store, hash and share it like a published archive."""

import hashlib
import os
import tarfile
from pathlib import Path

from rib.base.errors import UserError
from rib.base.progress import Progress, log


def files_of(folder: Path) -> list[Path]:
    """Sorted files below a folder, without hidden ones and links to outside; raise a UserError if there are none."""
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist; put the images there or correct the entry."
        )
    hidden = (
        path
        for path in folder.rglob("*")
        if not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    root = folder.resolve()
    found = sorted(
        path for path in hidden if path.is_file() and path.resolve().is_relative_to(root)
    )
    if not found:
        raise UserError(
            f"the folder {folder} contains no files; put the images there or correct the entry."
        )
    return found


def listing(folder: Path) -> str:
    """Digest of a folder's file names and sizes; an edit that keeps a file's size goes unnoticed."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        digest.update(
            os.fsencode(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0")
        )
    return digest.hexdigest()[:16]


def pack(folder: Path, target: Path, what: str) -> Path:
    """Write a folder's files to a tar that depends only on their names and bytes; log what `files_of` leaves out."""
    files = files_of(folder)
    if left_out := {
        path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }.difference(files):
        log.warning(
            "%s: left out: %d hidden files or links, the first is %s",
            what,
            len(left_out),
            min(left_out),
        )
    with tarfile.open(target, "w") as archive:
        for path in Progress(files, desc=f"packing {what}", unit="file"):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            with open(path, "rb") as file:
                archive.addfile(info, file)
    return target
