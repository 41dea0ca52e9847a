"""Reading of tar and zip archives in order, without extracting them to disk."""

import contextlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.data.variables import ARCHIVE_RATIO, PHOTO_MEGABYTES, limit, photo_limit

# Bytes of one file in an archive, by kind; the limit of photos is a setting.
JSON, TABLE, FONT, TAR, WEIGHTS = 128 << 20, 64 << 20, 64 << 20, 4 << 30, 4 << 30
CHUNK = 1 << 20  # bytes read at once
# Bytes that any archive may unpack to. A larger one may unpack to limits.archive_ratio bytes for each
# of its own, by default 100: photos give 1, the drawings of the emoji family at most 8, tables of
# numbers or texts about 20, and zeros a thousand in gzip and a hundred thousand in xz or bzip2. A tar
# of a few short files would be above this ratio, since it is filled up with zeros.
FREE = 64 << 20
EXTENDED = b"LKxgX"  # types of headers in a tar with long names and further attributes
# In zipfile's message since Python 3.11.8 and 3.12.2; ObjectNet's zip has overlapping entries.
OVERLAP = "Overlapped entries"


class TooLargeError(UserError):
    """A file in an archive is larger than its kind may be."""

    def __init__(self, path: Path, name: str, largest: int):
        hint = "don't use it or, if it is a photo, raise limits.photo_megabytes in config.yaml"
        super().__init__(f"{path} contains '{name}' of more than {in_bytes(largest)}; {hint}.")


def archive_members(
    path: Path,
    wanted: Collection[str] | Callable[[str], bool] | None = None,
    password: tuple[str, str | None] | None = None,
    file: BinaryIO | None = None,
    largest: int | None = None,
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the regular files of a zip, wheel or tar archive in archive order: the name, and a function that reads it.

    It reads in chunks and raises TooLargeError at the limit, whatever size the archive states. Each file must be read
    before the next one is requested. What is unpacked of the whole archive has a limit too: in a compressed tar all
    bytes count, since those of a file that is skipped are unpacked as well, in a zip the sizes that the wanted files
    state. Nothing is extracted to disk, so a member named `../x` or a link can't write
    outside a folder. Such members are refused anyway, because the archive can't be trusted. Raises a UserError if the
    archive is truncated, damaged or in a format that Python can't read, unpacks to too many bytes, has a member that
    points outside, or the password is missing or wrong.

    Args:
        path: the archive; the compression of a tar is detected from its content.
        wanted: names to yield, or a predicate on names; None yields all.
        password: for an encrypted zip: the environment variable that holds the password, and its value.
        file: bytes of an archive within another one; `path` is then only its name in messages.
        largest: most bytes of a file that is read; None for the limit of photos.
    """
    largest = largest or photo_limit(PHOTO_MEGABYTES)
    take = (
        (lambda name: True)
        if wanted is None
        else wanted
        if callable(wanted)
        else (lambda name: name in wanted)
    )
    # Where sizes are read, a MemoryError means damage.
    with (
        _damage_explained(path, UserError),
        contextlib.nullcontext(file) if file else open(path, "rb") as data,
    ):
        is_zip = data.read(2) == b"PK"  # zipfile would take a tar that ends in a zip for that zip
        unpacked = _Unpacked(path, size=data.seek(0, os.SEEK_END))
        data.seek(0)
        if is_zip:
            with zipfile.ZipFile(data) as archive:
                for info in archive.infolist():
                    _refuse_hostile(path, info.filename, info.file_size)
                    if not info.is_dir() and take(info.filename):
                        unpacked.add(min(info.file_size, largest))
                        yield info.filename, partial(_unzip, archive, info, path, password, largest)
        else:
            # Names that are not UTF-8 are escaped in the same way on every machine.
            options = {"encoding": "utf-8", "errors": "backslashreplace", "tarinfo": _Header}
            with tarfile.open(fileobj=data, **options) as archive:
                if archive.fileobj is not data:  # it is compressed
                    archive.fileobj = _CountedFile(archive.fileobj, unpacked)
                while (member := archive.next()) is not None:
                    archive.members.clear()  # tarfile would keep about 1 kB for each of millions of members
                    _refuse_hostile(path, member.name, member.size)
                    if (member.issym() or member.islnk()) and take(member.name):
                        raise UserError(
                            f"{path} contains '{member.name}' as a link to '{member.linkname}'; don't use this file."
                        )
                    if member.isfile() and take(member.name):
                        yield member.name, partial(_untar, archive, member, path, largest)


class _Unpacked:
    """How many bytes of an archive were unpacked.

    Args:
        path: the archive.
        size: its size in bytes.
    """

    def __init__(self, path: Path, size: int):
        self._path = path
        self._size = size
        self._most = max(FREE, limit(ARCHIVE_RATIO) * size)
        self._count = 0

    def add(self, count: int) -> None:
        """Count more bytes; raise a UserError if they are too many."""
        self._count += count
        if self._count > self._most:
            raise UserError(
                f"{self._path} of {in_bytes(self._size)} unpacks to more than {in_bytes(self._most)}; don't use this "
                "file or, if you trust it, raise limits.archive_ratio in config.yaml."
            )


class _CountedFile:
    """A compressed file that counts the bytes that are unpacked when it is read, also to reach a place in it."""

    def __init__(self, file: BinaryIO, unpacked: _Unpacked):
        self._file = file
        self._unpacked = unpacked
        self.tell, self.close = file.tell, file.close

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._unpacked.add(len(data))
        return data

    def seek(self, place: int) -> None:
        """Unpack all before a place, chunk by chunk; less if the file ends before it."""
        if place < self.tell():
            self._file.seek(0)
        while (left := place - self.tell()) > 0 and self.read(min(CHUNK, left)):
            pass


@contextlib.contextmanager
def _damage_explained(path: Path, *passing: type[Exception]) -> Iterator[None]:
    """Turn any other error into one that explains the damage: zipfile and tarfile raise many types on damaged input."""
    try:
        yield
    except passing:
        raise
    except NotImplementedError as error:
        raise UserError(
            f"{path} is in a format that Python can't read ({error}); repack it."
        ) from error
    except Exception as error:
        if OVERLAP in str(error):
            raise UserError(
                f"{path} has overlapping entries, which this Python rejects as an attack ({error}); if you trust the "
                "file, repack it or, if it is encrypted, install Info-ZIP's `unzip`, which is then used."
            ) from error
        raise UserError(
            f"{path} can't be read as an archive ({str(error) or type(error).__name__}); it is truncated or damaged: "
            "delete it and run again."
        ) from error


class _Header(tarfile.TarInfo):
    """A header of a tar; tarfile reads extended ones and maps of sparse files at once, whatever their size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        shared = sum(map(len, archive.pax_headers.values()))
        if (self.type in EXTENDED and self.size > CHUNK) or shared > CHUNK:
            raise ValueError(f"headers of {self.size + shared} bytes")
        return (
            self._proc_gnusparse_10()
            if self.type == tarfile.GNUTYPE_SPARSE
            else super()._proc_member(archive)
        )

    def _proc_gnusparse_10(self, *_) -> None:
        raise NotImplementedError("a sparse file")


def _untar(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, largest: int) -> bytes:
    with _damage_explained(path, UserError, MemoryError):
        return read_limited(archive.extractfile(member), largest, path, member.name)


def read_limited(file: BinaryIO, largest: int, path: Path, name: str) -> bytes:
    """Read a file in chunks; raise TooLargeError if it has more than `largest` bytes."""
    chunks, left = [], largest
    while chunk := file.read(CHUNK):
        left -= len(chunk)
        if left < 0:
            raise TooLargeError(path, name, largest)
        chunks.append(chunk)
    return b"".join(chunks)


def _unzip(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    path: Path,
    password: tuple[str, str | None] | None,
    largest: int,
) -> bytes:
    with _damage_explained(path, UserError, MemoryError):
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError(
                "of its other compressions, zipfile expands any number of bytes at once"
            )
        encrypted, (variable, value) = info.flag_bits & 1, password or ("", None)
        if encrypted and not value:
            how = f"set the environment variable {variable} to the password shown on its download page"
            raise UserError(
                f"{path} is encrypted; {how if variable else 'its layout has no password'}."
            )
        try:
            with archive.open(info, pwd=os.fsencode(value) if encrypted else None) as file:
                return read_limited(file, largest, path, info.filename)
        except (RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            wrong = "password" in str(error) or isinstance(error, zlib.error | zipfile.BadZipFile)
            if encrypted and wrong and OVERLAP not in str(error):
                raise UserError(
                    f"{path}: the password in {variable} doesn't open '{info.filename}' ({error}); correct it."
                ) from None
            raise


def _refuse_hostile(archive: Path, name: str, size: int) -> None:
    if name.startswith("/") or ".." in Path(name).parts:
        raise UserError(
            f"{archive} contains '{name}', which points outside the archive; don't use this file."
        )
    if size < 0:
        raise UserError(
            f"{archive} contains '{name}' of {size} bytes; it is damaged: delete it and run again."
        )
