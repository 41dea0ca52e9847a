"""Read encrypted zips with the program `unzip`, without extracting to disk.

Python's zipfile decrypts tens of times slower, and newer versions refuse ObjectNet's zip because
its entries overlap.
"""

import os
import re
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rib.base.errors import UserError
from rib.data.archives import TooLargeError, archive_members

WRONG_PASSWORD = 82  # unzip's manual, DIAGNOSTICS


def decrypted_members(
    path: Path, wanted: Callable[[str], bool], variable: str
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the files of an archive, decrypted: `("images/fox/1.png", read)`.

    Like rib.data.archives.archive_members, with the same limits.

    Args:
        path: the archive, a zip if encrypted.
        wanted: predicate on file names.
        variable: environment variable with the password, such as OBJECTNET_PASSWORD.

    Raises:
        UserError: the archive is refused, the password is missing or wrong, or `unzip` is not
            installed.
    """
    return archive_members(path, wanted, decrypt=partial(_decrypt, variable))


def _decrypt(variable: str, path: Path, member: zipfile.ZipInfo, largest: int) -> bytes:
    """The bytes of a file, which must have the size and checksum that the zip states."""
    password = os.environ.get(variable)
    if not password:
        raise UserError(
            f"{path} is encrypted; set the environment variable {variable} to the password shown "
            "on its download page."
        )
    name = member.filename
    if name.startswith("-") or not name.isascii() or not name.isprintable():
        raise UserError(f"{path} contains '{name}', which unzip can't be asked for; repack it.")
    if member.file_size > largest:
        raise TooLargeError(path, name, largest)
    with _started_unzip(path, name, password) as process:
        assert process.stdout is not None and process.stderr is not None  # pipes
        try:
            content = process.stdout.read(member.file_size)
        finally:
            process.kill()
        is_whole = len(content) == member.file_size and zlib.crc32(content) == member.CRC
        if is_whole:
            return content
        message = " ".join(process.stderr.read().decode(errors="replace").split())
    if process.returncode == WRONG_PASSWORD or "incorrect password" in message:
        raise UserError(f"{path}: the password in {variable} doesn't open '{name}'; correct it.")
    raise UserError(
        f"{path}: unzip can't read '{name}' ({message or 'other bytes than the zip states'}); the "
        f"file is truncated or damaged, or the password in {variable} is wrong."
    )


def _started_unzip(path: Path, name: str, password: str) -> subprocess.Popen[bytes]:
    """A process that writes the decrypted file `name` to its standard output."""
    # Unlike an argument, an environment variable doesn't show in the process list.
    quoted_password = re.sub(r'(["\\])', r"\\\1", password)
    environment = {
        **os.environ,
        "UNZIP": f'-P "{quoted_password}"',
        "UNZIP_DISABLE_ZIPBOMB_DETECTION": "TRUE",  # overlapping entries look like a bomb
    }
    pattern = re.sub(r"([\[\]*?\\])", r"\\\1", name)  # without wildcards
    try:
        return subprocess.Popen(
            ["unzip", "-p", "-q", str(path), pattern],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # without a terminal it can't ask for a password
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is encrypted, but Info-ZIP's `unzip`, which decrypts it, is not installed; "
            "install it."
        ) from error
