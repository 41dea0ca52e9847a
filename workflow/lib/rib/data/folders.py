"""Pack a user's folder into one archive, stored, hashed and shared like a published one."""

import hashlib
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.progress import Progress, log
from rib.records import provenance


def files_in(folder: Path) -> list[Path]:
    """Sorted files below a folder, without hidden files and links to outside.

    Raises:
        UserError: there are none.
    """
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist; put the images there, correct the entry or, in a "
            "clone with shared results, run `rib pull`."
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
    """Whether a file or a folder on its way begins with a point, such as `.git/config`."""
    return any(name.startswith(".") for name in path.parts)


def listing(folder: Path) -> str:
    """Digest of a folder's file names and sizes, 16 hex digits; if it changes, jobs run again.

    Bytes are not read, so edits that keep a file's size go unnoticed.
    """
    digest = hashlib.sha256()
    for path in files_in(folder):
        name = path.relative_to(folder).as_posix()
        digest.update(os.fsencode(f"{name}\0{path.stat().st_size}\0"))
    return digest.hexdigest()[:16]


def listing_of(source: Mapping[str, Any], archive: Path) -> str:
    """The listing (digest of names and sizes) of a source's folder.

    A clone may have only the pulled archive; its record states the listing with which it was
    packed.

    Args:
        source: of kind folder, as in the catalogue.
        archive: such as data/raw/photos/photos.tar; may be missing.

    Raises:
        UserError: the folder is missing or empty, and there is no archive with a record.
    """
    folder = Path(source["path"])
    record = provenance.read(archive.with_name(f"{archive.name}.provenance.json"))
    if folder.exists() or record is None or "listing" not in record["cfg"]["source"]:
        return listing(folder)
    listing_of_archive: str = record["cfg"]["source"]["listing"]
    return listing_of_archive


def pack(folder: Path, target: Path, name: str) -> Path:
    """Write a folder's files to a tar that depends only on their names and bytes; return its path.

    Left-out files (hidden ones and links to outside) are logged.

    Args:
        name: the dataset or model, for messages.
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
    """Warn of files and links that are not packed (not in `files`)."""
    left_out = {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    left_out.difference_update(files)
    if left_out:
        log.warning(
            "%s: left out: %d hidden files or links, the first is %s",
            name,
            len(left_out),
            min(left_out),
        )
