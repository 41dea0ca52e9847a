"""Reading of encrypted zips with the program `unzip`, tens of times faster than Python decrypts.

Nothing is extracted to disk: a process writes the files one after the other to a pipe. The zip's
directory gives the size and the checksum of each file.
"""

import contextlib
import os
import re
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from rib.base.errors import UserError
from rib.data.archives import TooLargeError, archive_members
from rib.data.variables import PHOTO_MEGABYTES, photo_limit

# Files per process: their names fit into a command, the messages about them into a pipe.
BATCH = 256
WRONG_PASSWORD = 82  # unzip's manual, DIAGNOSTICS


def decrypted_members(
    path: Path, wanted: Callable[[str], bool], variable: str
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield an encrypted zip's files like rib.data.archives.archive_members.

    It uses `unzip` if that can decrypt, and otherwise Python.

    Args:
        path: the zip.
        wanted: a predicate on names of files.
        variable: the environment variable that holds the password.

    Raises:
        UserError: see `archive_members`.
    """
    password = os.environ.get(variable)
    names = []
    if password and _program() is not None:
        names = [name for name, _ in archive_members(path, wanted)]
    if password is None or not names or not _suit_unzip(names):
        # Python decrypts, or explains what is wrong with the password.
        yield from archive_members(path, wanted, password=(variable, password))
        return
    with zipfile.ZipFile(path) as archive:
        members = [archive.getinfo(name) for name in names]
    # A process of `unzip` decrypts many files one after the other, of which a caller may read some.
    for start in range(0, len(members), BATCH):
        batch = members[start : start + BATCH]
        largest = photo_limit(PHOTO_MEGABYTES)
        to_decrypt = [member for member in batch if member.file_size <= largest]
        with contextlib.closing(_decrypt(path, to_decrypt, password, variable)) as decrypted:
            for member in batch:
                yield member.filename, partial(_skip_to, member, decrypted, path)


def _suit_unzip(names: Sequence[str]) -> bool:
    """Whether `unzip` can be asked for files by their names: it can't misinterpret any of them.

    Wildcards in names do no harm, since `_start_unzip` escapes them.
    """
    has_repetitions = len(set(names)) < len(names)
    if has_repetitions:
        return False
    for name in names:
        looks_like_option = name.startswith("-")
        if not name.isascii() or not name.isprintable() or looks_like_option:
            return False
    return True


def _skip_to(member: zipfile.ZipInfo, decrypted: Iterator[tuple[str, bytes]], path: Path) -> bytes:
    """Bytes of a file in a zip; decrypted files before it, which nobody has read, are skipped.

    Args:
        member: the file.
        decrypted: names and bytes of files, in the order of the zip; read up to this file.
        path: the zip, for messages.

    Raises:
        TooLargeError: the file is larger than photos may be, so it was not decrypted.
    """
    largest = photo_limit(PHOTO_MEGABYTES)
    if member.file_size > largest:
        raise TooLargeError(path, member.filename, largest)
    for name, content in decrypted:
        if name == member.filename:
            return content
    raise AssertionError(f"{member.filename} is read twice, or not in the order of the zip")


@cache
def _program() -> str | None:
    """Path of the program `unzip` of Info-ZIP; None if it is not installed or can't decrypt."""
    program = shutil.which("unzip")
    if program is None:
        return None
    version = subprocess.run(
        [program, "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    # The version lists `decryption` if the program was built with it.
    if "decryption" not in version.stdout:
        return None
    return program


def _decrypt(
    path: Path, members: Sequence[zipfile.ZipInfo], password: str, variable: str
) -> Generator[tuple[str, bytes], None, None]:
    """Names and bytes of files that one process decrypts.

    Raises:
        UserError: the password is wrong, or a file is not what the zip's directory states.
    """
    with _start_unzip(path, members, password) as process:
        assert process.stdout is not None  # a pipe
        try:
            for member in members:
                content = process.stdout.read(member.file_size)
                if len(content) < member.file_size or zlib.crc32(content) != member.CRC:
                    raise _unreadable(process, path, member.filename, variable)
                yield member.filename, content
        finally:
            process.kill()


def _start_unzip(
    path: Path, members: Sequence[zipfile.ZipInfo], password: str
) -> subprocess.Popen[bytes]:
    """Start a process of `unzip` that writes the bytes of files, one after the other, to a pipe.

    Args:
        path: the zip.
        members: the files.
        password: with which they are encrypted.
    """
    # Unlike a command-line argument, an environment variable doesn't show in the process list.
    quoted_password = re.sub(r'(["\\])', r"\\\1", password)
    environment = {
        **os.environ,
        "UNZIP": f'-P "{quoted_password}"',
        "UNZIP_DISABLE_ZIPBOMB_DETECTION": "TRUE",
    }
    # A backslash before what would be a wildcard in a name.
    patterns = [re.sub(r"([\[\]*?\\])", r"\\\1", member.filename) for member in members]
    program = _program()
    assert program is not None  # otherwise Python decrypts
    return subprocess.Popen(
        [program, "-p", "-q", str(path), *patterns],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # without a terminal it can't prompt for a password
    )


def _unreadable(
    process: subprocess.Popen[bytes], path: Path, name: str, variable: str
) -> UserError:
    """Why a process of unzip gave other bytes of a file than the zip's directory states."""
    assert process.stdout is not None and process.stderr is not None  # pipes
    process.stdout.close()
    message = " ".join(process.stderr.read().decode(errors="replace").split())
    code = process.wait()
    if code == WRONG_PASSWORD or "incorrect password" in message:
        return UserError(f"{path}: the password in {variable} doesn't open '{name}'; correct it.")
    reason = message or f"exit code {code}"
    return UserError(
        f"{path}: unzip can't read '{name}' ({reason}); the file is truncated or damaged, or the "
        f"password in {variable} is wrong."
    )
