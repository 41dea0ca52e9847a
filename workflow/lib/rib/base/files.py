"""JSON, tables, hashes and atomic writes."""

import base64
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rib.base.errors import UserError
from rib.base.progress import log
from rib.base.text import printable_cell

if TYPE_CHECKING:
    from pandas import DataFrame

CHUNK = 1 << 20  # bytes read at once


def from_home(path: str, source: str) -> Path:
    """Expand `~` at the start of a path: `~/photos` gives /home/me/photos.

    Args:
        source: where the user wrote the path, for the message, such as `config, archives`.

    Raises:
        UserError: the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{source}: the home folder in {path} is unknown; write the full path."
        ) from error


def file_hash(
    path: Path, algorithm: str, count: Callable[[int], object] = lambda size: None
) -> bytes:
    """Digest of a file, which is read in chunks to limit memory.

    Args:
        algorithm: a name that hashlib knows, such as `sha512`.
        count: called with the number of bytes of each chunk, for progress.
    """
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            count(len(chunk))
    return digest.digest()


def sha256(path: Path, count: Callable[[int], object] = lambda size: None) -> str:
    """SHA-256 of a file in hex; `count` gets the number of bytes of each chunk, for progress."""
    return file_hash(path, "sha256", count).hex()


def git_blob_id(path: Path) -> str:
    """SHA-1 (hex) of a file's size and bytes, as git computes it.

    The Hugging Face hub states this hash for files small enough to be in git itself.
    """
    size = path.stat().st_size
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify_digest(
    path: Path,
    pinned: str,
    name: str,
    remedy: str = "Delete it if it is in data/raw and run again",
) -> None:
    """Refuse a file with another digest than the pinned one, which the catalogue states.

    Args:
        pinned: `sha512-<base64>` (as in npm), `sha256:<hex>` or `git:<hex>` (see `git_blob_id`).
        name: the dataset or model, for the message.
        remedy: what the user can do with such a file, for the message.

    Raises:
        UserError: the digest differs.
    """
    algorithm, pinned_digest = re.split("[:-]", pinned, maxsplit=1)
    is_hex = ":" in pinned
    if algorithm == "git":
        digest = git_blob_id(path)
    elif is_hex:
        digest = file_hash(path, algorithm).hex()
    else:
        digest = base64.b64encode(file_hash(path, algorithm)).decode()
    if digest != pinned_digest:
        raise UserError(
            f"{name}: {path.name} ({path.stat().st_size} bytes) has {algorithm} {digest}, but the "
            f"catalogue pins {pinned_digest}; the file is truncated or not the published one. "
            f"{remedy}; if it still differs, ask its publisher before changing the pin."
        )


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys: equal contents give equal bytes, and so equal hashes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers never see a partial file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_table(path: Path, table: "DataFrame", float_format: str = "%.6f") -> None:
    """Write a table as CSV without its index; numbers have six decimals unless told otherwise."""
    write_text(path, table_text(table, float_format))


def table_text(table: "DataFrame", float_format: str = "%.6f") -> str:
    """A table as CSV without its index; equal tables give equal bytes on every system.

    Control characters are escaped, and spreadsheets compute no cell (`=1+2` becomes `'=1+2`).
    """
    printable_table = table.copy(deep=False)
    for position, column_type in enumerate(table.dtypes):
        has_texts = column_type.kind == "O"  # or categories of texts
        if has_texts:
            cells = table.iloc[:, position].tolist()
            printable_cells = _printable_cells(cells)
            if printable_cells != cells:
                printable_table.isetitem(position, printable_cells)
    header = [printable_cell(str(name)) for name in table.columns]
    text: str = printable_table.to_csv(
        index=False, header=header, float_format=float_format, lineterminator="\n"
    )
    return text


def _printable_cells(cells: list[Any]) -> list[Any]:
    """Cells whose texts are safe to show: ["=1+2", 3, None] becomes ["'=1+2", 3, None]."""
    printable_cells = []
    for cell in cells:
        if isinstance(cell, str):
            printable_cells.append(printable_cell(cell))
        else:
            printable_cells.append(cell)
    return printable_cells


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON file.

    Raises:
        UserError: it is not valid JSON.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); it is damaged: delete it and run again."
        ) from error
    return content


def is_private(folder: Path) -> bool:
    """Whether a path is a folder of this user that is closed to everybody else.

    Nobody else can hold or replace locks in it. A link to such a folder does not count.
    """
    status = folder.lstat()
    is_folder = stat.S_ISDIR(status.st_mode)
    is_of_this_user = status.st_uid == os.geteuid()
    is_open_to_others = bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return is_folder and is_of_this_user and not is_open_to_others


def refuse_unwritable(*paths: str) -> None:
    """Refuse paths where jobs could not write, before jobs fail because of it.

    Args:
        paths: files or folders, such as results/emoji. Of a path that does not exist, the nearest
            existing folder counts, in which it would be made.

    Raises:
        UserError: a path or folder is not writable.
    """
    for path in paths:
        existing = Path.cwd() / path
        while not os.access(existing, os.F_OK):
            existing = existing.parent
        if not os.access(existing, os.W_OK):
            raise UserError(
                f"{existing} is not writable; change its permissions, or copy the project "
                "elsewhere."
            )


def refuse_full_disk(folder: Path, size: int, task: str) -> None:
    """Log how many bytes a job will write, and refuse if the disk has less free space.

    Args:
        folder: any folder on the disk.
        size: in bytes.
        task: what the job does, such as `preparing digits`.

    Raises:
        UserError: there is too little free space.
    """
    free = shutil.disk_usage(folder).free
    log.info("%s writes %s; %s are free", task, in_bytes(size), in_bytes(free))
    if free < size:
        raise UserError(
            f"{task} needs {in_bytes(size)} of disk space, but {in_bytes(free)} are free; free "
            "some space, or move the project to a larger disk."
        )


def in_bytes(number: float) -> str:
    """Format a number of bytes, such as `1.25GB`."""
    return tqdm.format_sizeof(number, "B")
