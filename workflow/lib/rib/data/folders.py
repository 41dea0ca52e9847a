"""A folder of files as one archive, so that it is kept, hashed and shared as published archives are."""

import hashlib
import os
import tarfile
from pathlib import Path

from rib.io import Progress, UserError, is_folder


def files_of(folder: Path) -> list[Path]:
    """Files below a folder, sorted by their place; hidden ones and what links out of the folder are left out.

    Raises:
        UserError: there is no such folder, or nothing in it.
    """
    if not is_folder(folder):
        raise UserError(f"the folder {folder} does not exist; put the images there or correct its entry.")
    hidden = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    root = folder.resolve()
    found = sorted(path for path in hidden if path.is_file() and path.resolve().is_relative_to(root))
    if not found:
        raise UserError(f"the folder {folder} holds no file; put the images there or correct its entry.")
    return found


def listing(folder: Path) -> str:
    """Digest of what lies in a folder, by names and sizes: a file that is edited without another size goes unnoticed."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        digest.update(os.fsencode(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0"))
    return digest.hexdigest()[:16]


def pack(folder: Path, target: Path, what: str) -> Path:
    """Write a folder's files into a tar that depends on their names and bytes only.

    Args:
        folder: to pack.
        target: the tar.
        what: the dataset, for the progress.
    """
    with tarfile.open(target, "w") as archive:
        for path in Progress(files_of(folder), desc=f"packing {what}", unit="file"):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            with open(path, "rb") as file:
                archive.addfile(info, file)
    return target
