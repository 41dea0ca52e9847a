"""Files, hashes, progress: what every stage needs and nothing about robustness."""

import base64
import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tqdm import tqdm

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger("rib")

CHUNK = 1 << 20
ENDLESS = re.compile(r"(\S{300})\S{100,}(\S{20})")
LARGEST_MEMBER = 4 << 30  # bytes of one file in an archive
OVERLAP = "Overlapped entries"  # what zipfile says from Python 3.11.8 and 3.12.2 on; ObjectNet's zip is one of these


class UserError(Exception):
    """Something the user can put right: one sentence with what is wrong, where, and what to do.

    What it quotes from files can't break the line or steer a terminal: what isn't printable is shown as Python writes it,
    and of a word that has no end the start.
    """

    def __str__(self) -> str:
        text = ENDLESS.sub(r"\1...\2", super().__str__())
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder of this name; where no path can be so named there is none."""
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises for names that are too long)


def is_file(path: str | Path) -> bool:
    """Whether there is a file of this name, likewise."""
    return os.path.isfile(path)  # noqa: PTH113


def from_home(path: str, where: str) -> Path:
    """A path that people wrote, a `~` at its start replaced.

    Raises:
        UserError: it names a user that the machine doesn't have.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{where}: the folder that {path} stands for is not known; write the whole path.") from error


def file_hash(path: Path, algorithm: str = "sha256") -> bytes:
    """Digest of a file's bytes, read in chunks so that memory stays flat."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def sha256(path: Path) -> str:
    """SHA-256 of a file as hex."""
    return file_hash(path).hex()


def verify_digest(path: Path, pinned: str, what: str) -> None:
    """Check a file against a pinned digest, in either of the forms that publishers use.

    Args:
        path: the file.
        pinned: `sha512-<base64>` (npm's subresource integrity) or `sha256:<hex>`.
        what: what the file is, for the message.

    Raises:
        UserError: the digest differs.
    """
    if ":" in pinned:
        algorithm, _, expected = pinned.partition(":")
        found = file_hash(path, algorithm).hex()
    else:
        algorithm, _, expected = pinned.partition("-")
        found = base64.b64encode(file_hash(path, algorithm)).decode()
    if found != expected:
        raise UserError(
            f"{what}: {path.name} ({path.stat().st_size} bytes) has {algorithm} {found}, but the catalogue "
            f"pins {expected}; the file is truncated or not the published one: delete it if it is in data/raw, "
            "run again, and if it differs again ask its publisher before changing the pin."
        )


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys and a final newline, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text to a temporary name in the same folder, then rename: readers never see half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_table(path: Path, table: "DataFrame", numbers: str = "%.6f") -> None:
    """Write a table as CSV, so that equal tables give equal bytes on every system.

    Args:
        path: of the file.
        table: its index is left out.
        numbers: how those with a fraction are written.
    """
    write_text(path, table.to_csv(index=False, float_format=numbers, lineterminator="\n"))


def read_json(path: Path) -> dict:
    """Parse a JSON file.

    Raises:
        UserError: it isn't JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); it is damaged: delete it and run again.") from error


def archive_members(
    path: Path,
    wanted: Collection[str] | Callable[[str], bool] | None = None,
    password: tuple[str, str | None] | None = None,
    file: BinaryIO | None = None,
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the regular files in a zip, wheel or tar archive, in its order: the name, and a function that reads it.

    A file has to be read before the next is asked for. Nothing is extracted to disk, so a member named `../x` or a
    link can't write outside a folder; such members are refused all the same, since an archive that has one is not to
    be trusted.

    Args:
        path: the archive; a tar's compression is found by itself, whatever its name says.
        wanted: names to yield, or what says whether to, all when None.
        password: of an encrypted zip: the environment variable that holds it, and its value.
        file: of an archive within another: its bytes; `path` is then its name in messages.

    Raises:
        UserError: the archive is truncated or damaged, has a member that points outside or is far larger than an
            image or a model, is packed in a way that Python can't read, or the password is missing or wrong.
    """
    take = (lambda name: True) if wanted is None else wanted if callable(wanted) else (lambda name: name in wanted)
    with _damage_explained(path, passing=UserError):
        if zipfile.is_zipfile(file or path):
            with zipfile.ZipFile(file or path) as archive:
                for info in archive.infolist():
                    _refuse_hostile(path, info.filename, info.file_size)
                    if not info.is_dir() and take(info.filename):
                        yield info.filename, partial(_unzip, archive, info, path, password)
        else:
            if file:
                file.seek(0)
            # A name in another encoding than UTF-8 is shown escaped, the same on every machine.
            coding = {"encoding": "utf-8", "errors": "backslashreplace"}
            with tarfile.open(None if file else path, fileobj=file, **coding) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # which it would keep, 1 kB of each of millions
                    _refuse_hostile(path, member.name, member.size)
                    if (member.issym() or member.islnk()) and take(member.name):
                        raise UserError(
                            f"{path} holds '{member.name}' as a link to '{member.linkname}'; don't use this file."
                        )
                    if member.isfile() and take(member.name):
                        yield member.name, partial(_untar, archive, member, path)


@contextlib.contextmanager
def _damage_explained(
    path: Path, passing: type[Exception] | tuple[type[Exception], ...] = (UserError, MemoryError)
) -> Iterator[None]:
    """Say of an archive that it is damaged. Over such bytes zipfile and tarfile raise whatever their parts do.

    Args:
        path: the archive.
        passing: what is no sign of damage. Where sizes are read, want of memory is: one that nobody has is false.
    """
    try:
        yield
    except passing:
        raise
    except NotImplementedError as error:
        raise UserError(f"{path} is packed in a way that Python can't read ({error}); pack it anew.") from error
    except Exception as error:
        if OVERLAP in str(error):
            raise UserError(
                f"{path} has entries that overlap, which this Python takes for an attack ({error}); if you trust the file, "
                "unpack it and pack it anew, or, where it is encrypted, install Info-ZIP's `unzip`, which is then used."
            ) from error
        raise UserError(
            f"{path} can't be read as an archive ({str(error) or type(error).__name__}); it is truncated or damaged: "
            "delete it and run again."
        ) from error


def _untar(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    with _damage_explained(path):
        return archive.extractfile(member).read()


def _unzip(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, password: tuple[str, str | None] | None
) -> bytes:
    with _damage_explained(path):
        if not info.flag_bits & 1:
            return archive.read(info)
    variable, value = password or ("", None)
    if not value:
        how = f"set the environment variable {variable} to the password that its download page shows"
        raise UserError(f"{path} is encrypted; {how if variable else 'its layout knows no password'}.")
    with _damage_explained(path):
        try:
            return archive.read(info, os.fsencode(value))
        except (RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            wrong = "password" in str(error) or isinstance(error, zlib.error | zipfile.BadZipFile)
            if wrong and OVERLAP not in str(error):
                raise UserError(
                    f"{path}: the password in {variable} doesn't open '{info.filename}' ({error}); correct it."
                ) from None
            raise


def _refuse_hostile(archive: Path, name: str, size: int) -> None:
    if name.startswith("/") or ".." in Path(name).parts:
        raise UserError(f"{archive} holds the member '{name}', which points outside the archive; don't use this file.")
    if size < 0:
        raise UserError(f"{archive} holds the member '{name}' of {size} bytes; it is damaged: delete it and run again.")
    if size > LARGEST_MEMBER:
        raise UserError(
            f"{archive} holds the member '{name}' of {size / 1e9:.1f} GB, more than any image or model; don't use this file."
        )


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """State what a job is about to write, and stop before it begins where that doesn't fit.

    Args:
        folder: where it writes.
        needed: bytes.
        what: the job, for the message.

    Raises:
        UserError: less is free.
    """
    free = shutil.disk_usage(folder).free
    log.info("%s writes %s; %s are free", what, in_bytes(needed), in_bytes(free))
    if free < needed:
        raise UserError(
            f"{what} needs {in_bytes(needed)} of disk, and {in_bytes(free)} are free; make room, or put the project on a "
            "larger disk."
        )


def in_bytes(number: float) -> str:
    """A number of bytes as people read it, for example 1.25GB."""
    return tqdm.format_sizeof(number, "B")


class Progress(tqdm):
    """tqdm's counts, rate and ETA as log lines: at most one every few seconds, none for short work."""

    def __init__(self, iterable=None, *, desc: str, total: int | None = None, unit: str):
        super().__init__(iterable, desc=desc, total=total, unit=unit, mininterval=5, delay=5, ascii=True, leave=False)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.n:
            log.info(self.format_meter(**{**self.format_dict, "ncols": 0}))
        return True

    def clear(self, nolock: bool = False) -> None:
        """Log lines stay: there is nothing on a screen to wipe."""
