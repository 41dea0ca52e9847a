"""Reading of encrypted zips with the program `unzip`, which decrypts tens of times faster than Python.

Nothing is extracted to disk: a process writes the files one after the other to a pipe. The zip's directory gives the
size and the checksum of each file.
"""

import contextlib
import os
import re
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from rib.base.errors import UserError
from rib.data.archives import TooLargeError, archive_members
from rib.data.variables import PHOTO_MEGABYTES, photo_limit

BATCH = (
    256  # files per process: their names fit into a command, the messages about them into a pipe
)
WRONG_PASSWORD = 82  # unzip's manual, DIAGNOSTICS


def decrypted_members(
    path: Path, wanted: Callable[[str], bool], variable: str
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield an encrypted zip's files like rib.data.archives.archive_members, using `unzip` if it can decrypt.

    The environment variable holds the password. Errors are those of archive_members.
    """
    password = os.environ.get(variable)
    names = [name for name, _ in archive_members(path, wanted)] if password and _program() else []
    # Python reads archives with names that unzip might misinterpret.
    plain = all(
        name.isascii() and name.isprintable() and not name.startswith("-") for name in names
    )
    if not names or not plain or len(set(names)) < len(names):
        yield from archive_members(path, wanted, password=(variable, password))
        return
    with zipfile.ZipFile(path) as archive:
        files = [archive.getinfo(name) for name in names]
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        read = [file for file in batch if file.file_size <= photo_limit(PHOTO_MEGABYTES)]
        with contextlib.closing(_decrypted(path, read, password, variable)) as decrypted:
            for file in batch:
                yield file.filename, partial(_skip_to, file, decrypted, path)


def _skip_to(wanted: zipfile.ZipInfo, decrypted: Iterator[tuple[str, bytes]], path: Path) -> bytes:
    """Bytes of a file; the files before it that were not requested are skipped."""
    if wanted.file_size > (largest := photo_limit(PHOTO_MEGABYTES)):
        raise TooLargeError(path, wanted.filename, largest)
    return next(data for name, data in decrypted if name == wanted.filename)


@cache
def _program() -> str | None:
    """Info-ZIP's unzip; None if it is not installed or can't decrypt."""
    found = shutil.which("unzip")
    said = (
        found
        and subprocess.run(
            [found, "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        ).stdout
    )
    return found if said and "decryption" in said else None


def _decrypted(
    path: Path, files: Sequence[zipfile.ZipInfo], password: str, variable: str
) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of files that one process decrypts."""
    # Unlike a command-line argument, an environment variable doesn't show in the process list.
    options = '-P "{}"'.format(re.sub(r'(["\\])', r"\\\1", password))
    process = subprocess.Popen(
        [
            _program(),
            "-p",
            "-q",
            str(path),
            *(re.sub(r"([\[\]*?\\])", r"\\\1", file.filename) for file in files),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "UNZIP": options, "UNZIP_DISABLE_ZIPBOMB_DETECTION": "TRUE"},
        start_new_session=True,  # without a terminal it can't prompt for a password
    )
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        for file in files:
            data = process.stdout.read(file.file_size)
            if len(data) < file.file_size or zlib.crc32(data) != file.CRC:
                process.stdout.close()
                said = " ".join(process.stderr.read().decode(errors="replace").split())
                code = process.wait()
                if code == WRONG_PASSWORD or "incorrect password" in said:
                    raise UserError(
                        f"{path}: the password in {variable} doesn't open '{file.filename}'; correct it."
                    )
                raise UserError(
                    f"{path}: unzip can't read '{file.filename}' ({said or f'exit code {code}'}); the file is "
                    f"truncated or damaged, or the password in {variable} is wrong."
                )
            yield file.filename, data
