"""Debian packages: fetching one with apt-get, without root, and reading a file in one.

Nothing is installed. A package is an archive in ar's format (man 5 deb), in which the tar of its
files is data.tar or data.tar.<compression>.
"""

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.progress import log
from rib.data.archives import CHUNK, FREE, archive_members
from rib.data.http import STALL, run_client
from rib.data.variables import ARCHIVE_RATIO, limit

# Format of ar: a magic text, then for each file a header of 60 bytes and its bytes, filled up to an
# even number. Of a header, the name is in bytes 0 to 16 and the size in bytes 48 to 58, as text.
MAGIC = b"!<arch>\n"
HEADER_SIZE = 60
NAME = slice(0, 16)
SIZE = slice(48, 58)
END_OF_HEADER = slice(58, 60)
END = b"`\n"
MOST_FILES = 16  # of the ar archive; dpkg writes three
VERSION_FILE = "debian-binary"
VERSION = b"2."  # the only format of packages since 1995
LARGEST_MEMBER = 1 << 30  # bytes of a file in a package, which is read into memory
MOST_COMPLAINTS = 3  # lines of apt-get that are repeated
HEARTBEAT = 1.0  # seconds between two looks at apt-get
# Commands of the machine's configuration that apt-get would call around an update.
WITHOUT_HOOKS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def fetch_package(package: str, target: Path, seconds_to_answer: float, name: str) -> None:
    """Fetch the .deb of a package from the machine's Debian mirrors, which apt-get verifies.

    The lists of packages are fetched too, into a private folder beside `target`, so that neither
    root nor up-to-date lists are needed.

    Args:
        package: name of the package.
        target: file to write.
        seconds_to_answer: time after which mirrors that sent nothing are given up.
        name: the dataset or model, for the log.

    Raises:
        UserError: apt-get is missing, or has no such package; the message says why.
    """
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise UserError("apt-get is not installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary).resolve()
        downloads = folder / "downloads"
        command = [apt_get, *_apt_options(folder, seconds_to_answer)]
        updated = _run_apt([*command, "update"], folder / "lists", seconds_to_answer, name)
        # A failed update may leave enough, for example if one of several mirrors is dead. The
        # lists are read first now, which takes seconds.
        downloaded = _run_apt([*command, "download", "--", package], downloads, STALL, name)
        files = sorted(downloads.glob("*.deb"))
        if downloaded.returncode != 0 or len(files) != 1:
            problems = _complaints(updated.stdout) + _complaints(downloaded.stdout)
            raise UserError("; ".join(problems) or f"apt-get ended with {downloaded.returncode}")
        os.replace(files[0], target)


def _apt_options(folder: Path, seconds_to_answer: float) -> list[str]:
    """Make the folders that apt-get uses, and return options by which it uses no others."""
    for name in ("lists", "cache", "downloads"):
        (folder / name).mkdir()
    without_hooks = folder / "apt.conf"
    without_hooks.write_text(WITHOUT_HOOKS)
    settings = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": 1,  # of the machine's own folders
        "Acquire::Languages": "none",
        "Acquire::Retries": 0,
        "Acquire::http::Timeout": int(seconds_to_answer),
        "Acquire::https::Timeout": int(seconds_to_answer),
    }
    options = ["-c", str(without_hooks)]
    for key, setting in settings.items():
        options += ["-o", f"{key}={setting}"]
    return options


def _run_apt(
    command: list[str], folder: Path, seconds_to_answer: float, name: str
) -> subprocess.CompletedProcess[str]:
    """Run apt-get in a folder until it ends, or until nothing arrives there any more.

    Args:
        command: apt-get with its arguments.
        folder: where it writes what it fetches.
        seconds_to_answer: time in which the first bytes must arrive.
        name: the dataset or model, for the log.

    Raises:
        UserError: it was stopped, since nothing arrived.
    """
    size_so_far = 0
    last_growth = time.monotonic()

    def check(output: bytes) -> None:
        """Look how much has arrived in the folder; a UserError if nothing has for too long."""
        nonlocal size_so_far, last_growth
        size = _bytes_in(folder)
        now = time.monotonic()
        if size > size_so_far:
            size_so_far = size
            last_growth = now
        log.debug("%s: apt-get fetched %s so far", name, in_bytes(size))
        patience = STALL if size_so_far else seconds_to_answer
        if now - last_growth > patience:
            raise UserError(f"no answer of the machine's Debian mirrors within {patience:g} s")

    return run_client(
        command,
        HEARTBEAT,
        check,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
    )


def _bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder, in which another program writes and renames."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if path.is_file():
                size += path.stat().st_size
    return size


def _complaints(output: str) -> list[str]:
    """The first errors that apt-get printed and, of an update, those of the mirrors.

    They are its lines `E: ...` and `W: Failed ...` without the letter in front.
    """
    complaints = []
    for line in output.splitlines():
        if line.startswith(("E: ", "W: Failed")):
            complaints.append(line[len("E: ") :].strip())
    return complaints[:MOST_COMPLAINTS]


@dataclass(frozen=True)
class ArFile:
    """A file in an ar archive."""

    name: str
    start: int  # position of its first byte
    size: int  # in bytes


def read_member(package: Path, member: str, largest: int, scratch: Path) -> bytes:
    """Bytes of a file in a Debian package, of which nothing else is unpacked.

    Args:
        package: the .deb.
        member: path of the file in the package, without `./` in front.
        largest: bytes that it may have.
        scratch: folder for a temporary file.

    Raises:
        UserError: this is no Debian package, it is damaged, or unpacks to too many bytes; it lacks
            the file, or has a link in its place; or the file is too large.
    """
    largest = min(largest, LARGEST_MEMBER)
    with open(package, "rb") as file:
        tar = _tar_of_files(file)
        section: BinaryIO = io.BufferedReader(_Section(file, tar))
        label = Path(f"{package.name}, {tar.name}")  # for messages
        with contextlib.ExitStack() as resources:
            if tar.name.endswith(".zst"):
                section = resources.enter_context(_without_zstd(section, tar.size, label, scratch))

            def is_wanted(name: str) -> bool:
                return name.removeprefix("./") == member

            # The first file of this name is the one.
            for _, read in archive_members(label, is_wanted, file=section, largest=largest):
                return read()
    raise UserError(f"{package.name} has no file '{member}'")


def _tar_of_files(package: BinaryIO) -> ArFile:
    """The tar with the files of a Debian package; raises a UserError if this is none."""
    files = list(ar_files(package))
    if not files or files[0].name != VERSION_FILE:
        raise UserError(f"it is no Debian package: its first file is not {VERSION_FILE}")
    package.seek(files[0].start)
    if not package.read(min(files[0].size, 16)).startswith(VERSION):
        raise UserError("it is a Debian package of an unknown format")
    tars = [file for file in files if file.name == "data.tar" or file.name.startswith("data.tar.")]
    if len(tars) != 1:
        raise UserError(f"it is no Debian package: it has {len(tars)} files data.tar instead of 1")
    return tars[0]


def ar_files(archive: BinaryIO) -> Iterator[ArFile]:
    """The files in an ar archive, in its order.

    Only what Debian packages need is read: no long names, which other programs write.

    Raises:
        UserError: it is no ar archive, or damaged.
    """
    size_of_archive = archive.seek(0, os.SEEK_END)
    archive.seek(0)
    if archive.read(len(MAGIC)) != MAGIC:
        raise UserError("it is no Debian package: it does not begin as an ar archive does")
    position = len(MAGIC)
    count = 0
    while position < size_of_archive:
        count += 1
        archive.seek(position)
        header = archive.read(HEADER_SIZE)
        size_text = header[SIZE].rstrip(b" ")
        is_header = len(header) == HEADER_SIZE and header[END_OF_HEADER] == END
        if not is_header or not size_text.isdigit() or count > MOST_FILES:
            raise UserError(f"it is a damaged ar archive: no header is valid at byte {position}")
        start = position + HEADER_SIZE
        size = int(size_text)
        if start + size > size_of_archive:
            raise UserError("it is a truncated ar archive: it ends before its last file does")
        # Some programs end names with a slash.
        name = header[NAME].rstrip(b" ").removesuffix(b"/").decode("ascii", "backslashreplace")
        yield ArFile(name, start, size)
        position = start + size + size % 2


class _Section(io.RawIOBase):
    """The bytes of one file in an archive, as a file of its own."""

    def __init__(self, archive: BinaryIO, section: ArFile):
        """Begin at the section's first byte; nothing is read yet."""
        self._archive = archive
        self._section = section
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, counted from the start, the current position or the end; return it."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._section.size}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes of the section; return how many there were."""
        bytes_left = max(0, self._section.size - self._position)
        self._archive.seek(self._section.start + self._position)
        chunk = self._archive.read(min(len(buffer), bytes_left))
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


@contextlib.contextmanager
def _without_zstd(
    compressed: BinaryIO, size: int, label: Path, scratch: Path
) -> Iterator[BinaryIO]:
    """Yield a temporary file with the tar of a zstd file, which tarfile can't read before 3.14.

    Args:
        compressed: the zstd file.
        size: bytes of it.
        label: what it is, for messages.
        scratch: folder for the temporary file.
    """
    import pyarrow

    largest = max(FREE, limit(ARCHIVE_RATIO) * size)
    bytes_so_far = 0
    with tempfile.TemporaryFile(dir=scratch) as tar:
        stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(compressed, "r"), "zstd")
        while True:
            try:
                chunk = stream.read(CHUNK)
            except (OSError, pyarrow.ArrowException) as error:
                raise UserError(f"{label} is no valid zstd file ({error})") from error
            if not chunk:
                break
            bytes_so_far += len(chunk)
            if bytes_so_far > largest:
                raise UserError(f"{label} unpacks to more than {in_bytes(largest)}")
            tar.write(chunk)
        yield tar
