"""Encrypted zips through the program `unzip`, which decrypts tens of times as fast as Python.

Nothing is extracted: a process writes files one after the other into a pipe, and each is told from the next by the size
that the zip's listing states, and compared with the checksum there.
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

from rib.io import UserError, archive_members

BATCH = 256  # files that one process is asked for: their names fit a command, what is said of them into a pipe
WRONG_PASSWORD = 82  # unzip's manual, DIAGNOSTICS


def decrypted_members(
    path: Path, wanted: Callable[[str], bool], variable: str
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield an encrypted zip's files as rib.io.archive_members does, by `unzip` where there is one that decrypts.

    Args:
        path: the zip.
        wanted: says of a name whether to yield it.
        variable: the environment variable that holds the password.

    Raises:
        UserError: see archive_members.
    """
    password = os.environ.get(variable)
    names = [name for name, _ in archive_members(path, wanted)] if password and _program() else []
    # What unzip might read as another name is left to Python.
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
    """Info-ZIP's unzip; None where there is none, or one of the small ones that can't decrypt."""
    found = shutil.which("unzip")
    said = found and subprocess.run([found, "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    return found if said and "decryption" in said else None


def _plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and not name.startswith("-")


class _Stream:
    """Files of a zip in its order; those that are not asked for are passed over."""

    def __init__(self, path: Path, files: Sequence[zipfile.ZipInfo], password: str, variable: str):
        self.path, self.files, self.password, self.variable = path, files, password, variable
        self._process: subprocess.Popen | None = None
        self._next = self._end = 0  # place of the file that the process writes next, and of the first that it doesn't

    def read(self, place: int) -> bytes:
        """Bytes of a file; places must ascend.

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
        # In the environment the password is in no list of processes, as it would be in the command.
        options = '-P "{}"'.format(re.sub(r'(["\\])', r"\\\1", self.password))
        names = [re.sub(r"([\[\]*?\\])", r"\\\1", file.filename) for file in batch]
        self._process = subprocess.Popen(
            [_program(), "-p", "-q", str(self.path), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "UNZIP": options, "UNZIP_DISABLE_ZIPBOMB_DETECTION": "TRUE"},
            start_new_session=True,  # without a terminal it can't ask for a password
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
            f"{self.path}: unzip can't read '{name}' ({said or f'it ended with {code}'}); the file is truncated or damaged, or "
            f"the password in {self.variable} is wrong."
        )

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()
            self._process = None
