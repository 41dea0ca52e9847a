"""A content that its digest identifies, and files in which it may be packed.

A mirror is as in the catalogue (rib.config.source_entries.Mirror). With `member`, the file
that it gives is a Debian package that has the content as this file; with `compression`, the
content, or the package's file, is compressed.
"""

import gzip
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import verify_digest
from rib.data.archives import CHUNK
from rib.data.debian import read_member

# What gzip adds at most to what it can't compress: far less than a hundredth, and a header with a
# file name.
GZIP_OVERHEAD = 0.01
GZIP_HEADER = 64 << 10  # bytes
WEB_PAGE = b"<"  # how one begins, after white space


def is_packed(mirror: Mapping[str, Any]) -> bool:
    """Whether a mirror has the content in another file."""
    return "compression" in mirror or "member" in mirror


@dataclass(frozen=True)
class Content:
    """A file that its digest identifies, wherever it comes from."""

    file: str
    digest: str  # pinned, see rib.base.files.verify_digest
    size: int | None  # in bytes, None if the catalogue states none

    @property
    def largest_packed(self) -> int:
        """Bytes that the content may have in gzip."""
        size = self._stated_size()
        return size + int(size * GZIP_OVERHEAD) + GZIP_HEADER

    def difference(self, path: Path) -> str | None:
        """How a file differs from the content; None if it doesn't."""
        try:
            verify_digest(path, self.digest, self.file)
        except UserError:
            with open(path, "rb") as file:
                is_web_page = file.read(512).lstrip().startswith(WEB_PAGE)
            received = f"a different file of {path.stat().st_size} bytes"
            if is_web_page:
                received = "a web page (a login, a confirmation or an error)"
            return f"{received} was received instead of the pinned file"
        return None

    def unpack(self, packed_file: Path, mirror: Mapping[str, Any], target: Path) -> None:
        """Write the content that a file has packed.

        Args:
            packed_file: the file that the mirror gave.
            mirror: says how the content is packed.
            target: where the content is written; nothing is left there after an error.

        Raises:
            UserError: the packed_file is damaged, lacks the content, or has another one.
        """
        try:
            self._write(packed_file, mirror, target)
            difference = self.difference(target)
            if difference is not None:
                raise UserError(difference)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _write(self, packed_file: Path, mirror: Mapping[str, Any], target: Path) -> None:
        """Unpack what a file has in place of the content, before it is compared with the pin.

        Args:
            packed_file: a gzip file or, if the mirror has a `member`, a Debian package with this
                file, which may be compressed itself.
            mirror: says how the content is packed.
            target: where it is written.
        """
        is_compressed = "compression" in mirror
        if "member" not in mirror:
            _gunzip(packed_file, target, self._stated_size())
            return
        largest = self.largest_packed if is_compressed else self._stated_size()
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            member = Path(scratch) / "member"
            member.write_bytes(read_member(packed_file, mirror["member"], largest, Path(scratch)))
            if is_compressed:
                _gunzip(member, target, self._stated_size())
            else:
                os.replace(member, target)

    def _stated_size(self) -> int:
        """The size that the catalogue states, as its schema demands of what is packed."""
        assert self.size is not None
        return self.size


def _gunzip(compressed: Path, target: Path, size: int) -> None:
    """Unpack a gzip file, of which no more than one byte above a size is unpacked.

    Raises:
        UserError: it is damaged, or unpacks to more bytes.
    """
    bytes_so_far = 0
    with gzip.open(compressed) as stream, open(target, "wb") as file:
        while True:
            try:
                chunk = stream.read(min(CHUNK, size + 1 - bytes_so_far))
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UserError(f"what was received is no complete gzip file ({error})") from error
            if not chunk:
                break
            bytes_so_far += len(chunk)
            if bytes_so_far > size:
                raise UserError(
                    f"what was received unpacks to more than the {size} bytes of the pinned file"
                )
            file.write(chunk)
