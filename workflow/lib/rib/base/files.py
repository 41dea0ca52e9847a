"""Files: JSON, tables, hashes, atomic writes."""

import base64
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from rib.base.errors import UserError
from rib.base.progress import log
from rib.base.text import printable_cell

if TYPE_CHECKING:
    from pandas import DataFrame

CHUNK = 1 << 20  # bytes read at once


def from_home(path: str, where: str) -> Path:
    """Expand `~` at the start of a path; raise a UserError if the home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{where}: the home folder in {path} is unknown; write the full path."
        ) from error


def file_hash(
    path: Path, algorithm: str, count: Callable[[int], object] = lambda size: None
) -> bytes:
    """Digest of a file, read in chunks to limit memory; `count` is called with the bytes of each."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            count(len(chunk))
    return digest.digest()


def sha256(path: Path, count: Callable[[int], object] = lambda size: None) -> str:
    """SHA-256 of a file as hex; see `file_hash`."""
    return file_hash(path, "sha256", count).hex()


def verify_digest(path: Path, pinned: str, what: str) -> None:
    """Raise a UserError if a file lacks a pinned digest, `sha512-<base64>` (npm's integrity) or `sha256:<hex>`."""
    algorithm, expected = re.split("[:-]", pinned, maxsplit=1)
    digest = file_hash(path, algorithm)
    found = digest.hex() if ":" in pinned else base64.b64encode(digest).decode()
    if found != expected:
        raise UserError(
            f"{what}: {path.name} ({path.stat().st_size} bytes) has {algorithm} {found}, but the catalogue "
            f"pins {expected}; the file is truncated or not the published one. Delete it if it is in data/raw and run "
            "again; if it still differs, ask its publisher before changing the pin."
        )


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys and a final newline, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text to a temporary file in the same folder, then rename it, so that readers never see a partial file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_table(path: Path, table: "DataFrame", numbers: str = "%.6f") -> None:
    """Write a table as CSV without its index, so that equal tables give equal bytes on every system.

    Texts are printable and no formulas, see `rib.base.text.printable_cell`, whoever chose them.
    """
    shown = table.copy(deep=False)
    for position, kind in enumerate(table.dtypes):
        if kind.kind == "O":  # texts, or categories of them
            cells = table.iloc[:, position].tolist()
            printed = [printable_cell(cell) if isinstance(cell, str) else cell for cell in cells]
            if printed != cells:
                shown.isetitem(position, printed)
    header = [printable_cell(str(name)) for name in table.columns]
    text = shown.to_csv(index=False, header=header, float_format=numbers, lineterminator="\n")
    write_text(path, text)


def read_json(path: Path) -> dict:
    """Parse a JSON file; raise a UserError if it is not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); it is damaged: delete it and run again."
        ) from error


def is_private(folder: Path) -> bool:
    """Whether a path is a folder, not a link to one, that belongs to this user and is closed to everybody else."""
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    )


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """Log how many bytes a job will write; raise a UserError if there is less free disk space."""
    free = shutil.disk_usage(folder).free
    log.info("%s writes %s; %s are free", what, in_bytes(needed), in_bytes(free))
    if free < needed:
        raise UserError(
            f"{what} needs {in_bytes(needed)} of disk space, but {in_bytes(free)} are free; free some space, or move "
            "the project to a larger disk."
        )


def in_bytes(number: float) -> str:
    """Format a number of bytes, for example 1.25GB."""
    return tqdm.format_sizeof(number, "B")
