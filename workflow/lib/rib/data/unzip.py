"""Reading of encrypted zips with the program `unzip`, which decrypts tens of times faster than Python.

Nothing is extracted to disk: a process writes the files one after the other to a pipe. The zip's directory gives the
size and the checksum of each file.
"""

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
from rib.data.archives import archive_members

BATCH = 256  # files per process: their names fit into a command, the messages about them into a pipe
WRONG_PASSWORD = 82  # unzip's manual, DIAGNOSTICS


def decrypted_members(
    path: Path, wanted: Callable[[str], bool], variable: str
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield an encrypted zip's files like rib.data.archives.archive_members, using `unzip` if it can decrypt.

    Args:
        path: the zip.
        wanted: predicate on names.
        variable: the environment variable that holds the password.

    Raises:
        UserError: see archive_members.
    """
    password = os.environ.get(variable)
    names = [name for name, _ in archive_members(path, wanted)] if password and _program() else []
    # Python reads archives with names that unzip might misinterpret.
    if not names or len(set(names)) < len(names) or not all(map(_plain, names)):
        yield from archive_members(path, wanted, password=(variable, password))
        return
    with zipfile.ZipFile(path) as archive:
        files = [archive.getinfo(name) for name in names]
    stream = _Stream(path, files, password, variable)
    try:
        for place, name in enumerate(names):
            yield name, partial(stream.read, place)
    finally:
        stream.close()


@cache
def _program() -> str | None:
    """Info-ZIP's unzip; None if it is not installed or can't decrypt."""
    found = shutil.which("unzip")
    said = found and subprocess.run([found, "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    return found if said and "decryption" in said else None


def _plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and not name.startswith("-")


class _Stream:
    """Sequential reader of a zip's files; files that are not requested are skipped."""

    def __init__(self, path: Path, files: Sequence[zipfile.ZipInfo], password: str, variable: str):
        self.path, self.files, self.password, self.variable = path, files, password, variable
        self._process: subprocess.Popen | None = None
        self._next = self._end = 0  # index of the file that the process writes next, and of the first beyond its batch

    def read(self, place: int) -> bytes:
        """Bytes of a file; places must be requested in ascending order.

        Raises:
            UserError: unzip can't read it, or the password is wrong.
        """
        if place >= self._end:
            self._start(place)
        while self._next < place:
            self._take(self.files[self._next])
        return self._take(self.files[place])

    def _start(self, place: int) -> None:
        self.close()
        batch = self.files[place : place + BATCH]
        self._next, self._end = place, place + len(batch)
        # Unlike a command-line argument, an environment variable doesn't show in the process list.
        options = '-P "{}"'.format(re.sub(r'(["\\])', r"\\\1", self.password))
        names = [re.sub(r"([\[\]*?\\])", r"\\\1", file.filename) for file in batch]
        self._process = subprocess.Popen(
            [_program(), "-p", "-q", str(self.path), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "UNZIP": options, "UNZIP_DISABLE_ZIPBOMB_DETECTION": "TRUE"},
            start_new_session=True,  # without a terminal it can't prompt for a password
        )

    def _take(self, file: zipfile.ZipInfo) -> bytes:
        data = self._process.stdout.read(file.file_size)
        self._next += 1
        if len(data) < file.file_size or zlib.crc32(data) != file.CRC:
            self._refuse(file.filename)
        return data

    def _refuse(self, name: str) -> None:
        self._process.stdout.close()
        said = " ".join(self._process.stderr.read().decode(errors="replace").split())
        code = self._process.wait()
        if code == WRONG_PASSWORD or "incorrect password" in said:
            raise UserError(f"{self.path}: the password in {self.variable} doesn't open '{name}'; correct it.")
        raise UserError(
            f"{self.path}: unzip can't read '{name}' ({said or f'exit code {code}'}); the file is truncated or "
            f"damaged, or the password in {self.variable} is wrong."
        )

    def close(self) -> None:
        if self._process:
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()
            self._process = None
