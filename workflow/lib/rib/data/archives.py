"""Read tar and zip archives in order, without extracting them to disk.

Archives are untrusted: sizes, names and compression ratios are limited.
"""

import contextlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.data.variables import ARCHIVE_RATIO, PHOTO_MEGABYTES, limit, photo_limit

# Most bytes of one file in an archive, by kind; for images the limit is a setting.
JSON = 128 << 20
TABLE = 64 << 20
TAR = 4 << 30
WEIGHTS = 4 << 30
CHUNK = 1 << 20  # bytes read at once
# Bytes that any archive may unpack to. A larger archive may unpack to limits.archive_ratio bytes
# per byte, by default 100: photos give 1, drawings of the emoji family at most 8, tables of numbers
# or texts about 20, and zeros a thousand in gzip and a hundred thousand in xz or bzip2. A tar of a
# few short files would exceed the ratio, because tars are padded with zeros.
FREE = 64 << 20
EXTENDED = b"LKxgX"  # header types of a tar: long names and further attributes
ENCRYPTED = 1  # bit in a zip's flags
# Zip compressions for which zipfile expands no more bytes than asked for.
BOUNDED_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Gives an encrypted file's bytes, from the zip's path, the file's entry and the most bytes.
Decrypt = Callable[[Path, zipfile.ZipInfo, int], bytes]


class TooLargeError(UserError):
    """A file in an archive exceeds the limit of its kind."""

    def __init__(self, path: Path, name: str, largest: int):
        hint = "don't use it or, if it is an image, raise limits.photo_megabytes in config.yaml"
        super().__init__(f"{path} contains '{name}' of more than {in_bytes(largest)}; {hint}.")


def archive_members(
    path: Path,
    wanted: Collection[str] | Callable[[str], bool] | None = None,
    decrypt: Decrypt | None = None,
    file: BinaryIO | None = None,
    largest: int | None = None,
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the regular files of a zip, wheel or tar: `("a/1.png", read)`.

    Files come in the archive's order, and each must be read before the next is requested. `read()`
    raises TooLargeError at the limit, whatever size the archive states. The whole archive has a
    limit too: in a compressed tar all bytes count, because skipped files are unpacked as well; in a
    zip, the stated sizes of the wanted files.

    Nothing is extracted to disk. Members named `../x` and links are refused anyway: such an archive
    can't be trusted.

    Args:
        path: the archive; a tar's compression is detected from its content.
        wanted: names to yield, or a predicate on names; None for all.
        decrypt: reads encrypted files of a zip, such as rib.data.unzip; None refuses them.
        file: bytes of an archive inside another one; `path` is then only its name in messages.
        largest: most bytes of a file; None for the limit of images.

    Raises:
        UserError: the archive is truncated, damaged, encrypted or in a format that Python can't
            read, unpacks to too many bytes, or has a member that points outside.
    """
    is_wanted = _predicate(wanted)
    if largest is None:
        largest = photo_limit(PHOTO_MEGABYTES)
    # Here a MemoryError means damage: a stated size is absurd.
    with _damage_explained(path, UserError), _opened(path, file) as archive_file:
        # A tar may end in a zip, which zipfile would read instead.
        is_zip = archive_file.read(2) == b"PK"
        unpacked = Unpacked(path, size=archive_file.seek(0, os.SEEK_END))
        archive_file.seek(0)
        if is_zip:
            yield from _zip_members(archive_file, path, is_wanted, decrypt, largest, unpacked)
        else:
            yield from _tar_members(archive_file, path, is_wanted, largest, unpacked)


def _predicate(wanted: Collection[str] | Callable[[str], bool] | None) -> Callable[[str], bool]:
    """A function that says whether a name is wanted."""
    if wanted is None:
        return lambda name: True
    if callable(wanted):
        return wanted
    return lambda name: name in wanted


def _opened(path: Path, file: BinaryIO | None) -> contextlib.AbstractContextManager[BinaryIO]:
    """The archive's bytes for a `with` block, which closes the file only if it was opened here."""
    if file is None:
        return open(path, "rb")
    return contextlib.nullcontext(file)


def _zip_members(
    archive_file: BinaryIO,
    path: Path,
    is_wanted: Callable[[str], bool],
    decrypt: Decrypt | None,
    largest: int,
    unpacked: "Unpacked",
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields the wanted files of a zip, ("a/1.png", read); counts their stated sizes."""
    with zipfile.ZipFile(archive_file) as archive:
        for member in archive.infolist():
            _refuse_hostile(path, member.filename, member.file_size)
            if member.is_dir() or not is_wanted(member.filename):
                continue
            unpacked.add(min(member.file_size, largest))
            yield member.filename, partial(_unzip, archive, member, path, decrypt, largest)


def _tar_members(
    archive_file: BinaryIO,
    path: Path,
    is_wanted: Callable[[str], bool],
    largest: int,
    unpacked: "Unpacked",
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields the wanted files of a tar, ("a/1.png", read); counts all bytes if compressed."""
    # Escape names that are not UTF-8 in the same way on every machine.
    with tarfile.open(
        fileobj=archive_file, encoding="utf-8", errors="backslashreplace", tarinfo=_Header
    ) as archive:
        # For a compressed tar, tarfile reads through a file that decompresses.
        is_compressed = archive.fileobj is not archive_file
        if is_compressed:
            compressed_file: Any = archive.fileobj
            # tarfile calls only methods that it has; the types also ask for `write`.
            counted_file: Any = _CountedFile(compressed_file, unpacked)
            archive.fileobj = counted_file
        while (member := archive.next()) is not None:
            # tarfile would keep about 1 kB for each of millions of members. Type stubs lack the
            # list.
            archive.members.clear()  # type: ignore[attr-defined]
            _refuse_hostile(path, member.name, member.size)
            if not is_wanted(member.name):
                continue
            if member.issym() or member.islnk():
                raise UserError(
                    f"{path} contains '{member.name}' as a link to '{member.linkname}'; don't use "
                    "this file."
                )
            if member.isfile():
                yield member.name, partial(_untar, archive, member, path, largest)


class Unpacked:
    """Counts unpacked bytes of an archive, and refuses too many: kilobytes may become terabytes.

    Args:
        path: the archive, for messages.
        size: its size in bytes.
    """

    def __init__(self, path: Path, size: int):
        self._path = path
        self._size = size
        # The ratio is the user's; small archives may unpack to FREE bytes.
        self._limit = max(FREE, limit(ARCHIVE_RATIO) * size)
        self._count = 0

    def add(self, count: int) -> None:
        """Count more bytes; a UserError if there are too many."""
        self._count += count
        if self._count > self._limit:
            raise UserError(
                f"{self._path} of {in_bytes(self._size)} unpacks to more than "
                f"{in_bytes(self._limit)}; don't use this file or, if you trust it, raise "
                "limits.archive_ratio in config.yaml."
            )


class _CountedFile:
    """A decompressing file that counts its bytes, with only the methods that tarfile calls."""

    def __init__(self, file: BinaryIO, unpacked: Unpacked):
        self._file = file
        self._unpacked = unpacked

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        unpacked_bytes = self._file.read(size)
        self._unpacked.add(len(unpacked_bytes))
        return unpacked_bytes

    def seek(self, position: int) -> None:
        """Reads every chunk on the way, because skipped bytes count too."""
        if position < self.tell():
            self._file.seek(0)
        while self.tell() < position:
            chunk = self.read(min(CHUNK, position - self.tell()))
            if not chunk:
                break


@contextlib.contextmanager
def _damage_explained(path: Path, *unchanged: type[Exception]) -> Iterator[None]:
    """Turns any error on damaged input into a UserError, except errors of the `unchanged` types."""
    try:
        yield
    except unchanged:
        raise
    except NotImplementedError as error:
        raise UserError(
            f"{path} is in a format that Python can't read ({error}); repack it."
        ) from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path} can't be read as an archive ({reason}); it is truncated or damaged: delete it "
            "and run again."
        ) from error


class _Header(tarfile.TarInfo):
    """A tar's header; refuses long extensions and sparse files, which tarfile reads at once."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Overrides tarfile's method; a ValueError means headers larger than any true ones."""
        # Extended headers have names and attributes of the next file, global headers of all files.
        size_of_globals = sum(len(text) for text in archive.pax_headers.values())
        is_too_large = self.type in EXTENDED and self.size > CHUNK
        if is_too_large or size_of_globals > CHUNK:
            raise ValueError(f"headers of {self.size + size_of_globals} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            _refuse_sparse_file()
        # The stubs lack methods that are private to tarfile.
        header: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        """Overrides tarfile's method for GNU's format 1.0."""
        _refuse_sparse_file()


def _refuse_sparse_file() -> None:
    """Such a file states runs of zeros by their length, so a few bytes may become any number."""
    raise NotImplementedError("a sparse file")


def _untar(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, largest: int) -> bytes:
    """The bytes of a file in a tar, for `read` of `archive_members`."""
    with _damage_explained(path, UserError, MemoryError):
        file = archive.extractfile(member)
        assert file is not None  # regular files have one
        return read_limited(file, largest, path, member.name)


class Readable(Protocol):
    """A file of bytes that can be read in chunks."""

    def read(self, size: int, /) -> bytes: ...


def read_limited(file: Readable, largest: int, path: Path, name: str) -> bytes:
    """Read the file `name` of the archive `path`, whatever size the archive states.

    Raises:
        TooLargeError: the file has more than `largest` bytes.
    """
    chunks = []
    size = 0
    while chunk := file.read(CHUNK):
        size += len(chunk)
        if size > largest:
            raise TooLargeError(path, name, largest)
        chunks.append(chunk)
    return b"".join(chunks)


def _unzip(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    path: Path,
    decrypt: Decrypt | None,
    largest: int,
) -> bytes:
    """The bytes of a file in a zip, for `read` of `archive_members`."""
    with _damage_explained(path, UserError, MemoryError):
        if member.compress_type not in BOUNDED_COMPRESSIONS:
            raise NotImplementedError(
                "of its other compressions, zipfile expands any number of bytes at once"
            )
        if member.flag_bits & ENCRYPTED:
            if decrypt is None:
                raise UserError(f"{path} is encrypted; its layout has no password.")
            return decrypt(path, member, largest)
        with archive.open(member) as file:
            return read_limited(file, largest, path, member.filename)


def _refuse_hostile(path: Path, name: str, size: int) -> None:
    """A UserError for names such as `../x` or `/x`, and for negative sizes."""
    if name.startswith("/") or ".." in Path(name).parts:
        raise UserError(
            f"{path} contains '{name}', which points outside the archive; don't use this file."
        )
    if size < 0:
        raise UserError(
            f"{path} contains '{name}' of {size} bytes; it is damaged: delete it and run again."
        )
