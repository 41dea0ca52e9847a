"""Files that the user already has, in the folders listed under `archives` in config.yaml."""

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import from_home
from rib.data.variables import ARCHIVES
from rib.schema.addresses import is_packed


def archive_folders() -> list[Path]:
    """The user's folders with downloaded archives; some may not exist."""
    folders = []
    for written_path in os.environ.get(ARCHIVES, "").split(os.pathsep):
        if written_path:
            folders.append(from_home(written_path, "config, archives").resolve())
    return folders


def find_file(file_name: str) -> Path | None:
    """A file by its name in one of the user's archive folders; None if it is in none."""
    for folder in archive_folders():
        path = folder / file_name
        if path.is_file():
            return path
    return None


def find_packed_file(
    mirrors: Sequence[Mapping[str, Any]],
) -> tuple[Path, Mapping[str, Any]] | None:
    """The first file of the user's archive folders in which a mirror packs the content, or None.

    Args:
        mirrors: places of one content, such as `[{"kind": "apt", "package": "photos", "member":
            "usr/share/photos.tar.gz", "compression": "gzip"}]`.

    Returns:
        The file, such as photos_1.0_all.deb, and its mirror.
    """
    for folder in archive_folders():
        for mirror in mirrors:
            if not is_packed(mirror):
                continue
            packed_files = _packed_files(folder, mirror)
            if packed_files:
                return packed_files[0], mirror
    return None


def _packed_files(folder: Path, mirror: Mapping[str, Any]) -> list[Path]:
    """Files in a folder with a mirror's packed content; a package may have several versions."""
    if mirror["kind"] == "apt":
        paths = sorted(folder.glob(f"{mirror['package']}_*.deb"))
    else:
        paths = [folder / name_of_packed_file(mirror)]
    return [path for path in paths if path.is_file()]


def name_of_packed_file(mirror: Mapping[str, Any]) -> str:
    """Name of a mirror's file: `photos.tar.gz` from its URL, or `photos_*.deb` for a package."""
    if mirror["kind"] == "apt":
        return f"{mirror['package']}_*.deb"
    if mirror["kind"] == "hub":
        path: str = mirror["path"]
        return posixpath.basename(path)
    url_without_query = re.split("[?#]", mirror["url"])[0]
    return posixpath.basename(url_without_query)


def refuse_missing_folder() -> None:
    """Raise a UserError if an archive folder does not exist.

    A typo in a path must not start a download of hundreds of gigabytes.
    """
    for folder in archive_folders():
        if not folder.is_dir():
            raise UserError(
                f"config, archives: the folder {folder} does not exist; correct the path or remove "
                "it."
            )


def advice(file_name: str, mirrors: Sequence[Mapping[str, Any]] = ()) -> str:
    """How the user provides a file by hand, as the end of a message.

    For example: put photos.tar or photos_*.deb into /data/archives (`archives` in config.yaml).

    Args:
        file_name: the file itself.
        mirrors: places of its content; their packed files (.gz, .deb) are enough, too.
    """
    names = [file_name]
    for mirror in mirrors:
        if is_packed(mirror) and name_of_packed_file(mirror) not in names:
            names.append(name_of_packed_file(mirror))
    folders = archive_folders()
    folder = "a folder listed under `archives` in config.yaml"
    if folders:
        folder = f"{folders[0]} (`archives` in config.yaml)"
    return f"put {' or '.join(names)} into {folder}"
