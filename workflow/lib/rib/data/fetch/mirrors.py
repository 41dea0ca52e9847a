"""Fetch a file's content from the first of several mirrors: URLs, Debian packages, the hub.

Mirrors may pack the content differently (gzip, .deb). The unpacked content is stored, so its digest
is the same whichever mirror gave it. A mirror is a mapping as in the catalogue
(rib.schema.source_entries.Mirror), such as `{"kind": "http", "url": "https://..."}`.
"""

import gzip
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from rib.base.errors import UserError
from rib.base.files import verify_digest
from rib.base.hub import fetch_from_hub
from rib.base.locks import locked
from rib.base.progress import log
from rib.base.text import redacted
from rib.data.archive_folders import advice
from rib.data.fetch import curl, debian
from rib.schema.addresses import is_packed, mirrors_of

PAUSES = (0.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each round of attempts
CHUNK = 1 << 20  # bytes read at once
# Most that gzip adds to incompressible bytes: far less than a hundredth, and a header.
GZIP_OVERHEAD = 0.01
GZIP_HEADER = 64 << 10  # bytes
WEB_PAGE = b"<"  # start of a web page, after white space


def fetch_content(source: Mapping[str, Any], target: Path, partial: Path, what: str) -> None:
    """Fetch the content of a source from the first mirror that has it.

    A mirror that fails for good, for example with other bytes, is dropped. Mirrors that may answer
    later are tried again after a pause, up to five times.

    Args:
        source: of the catalogue, such as `{"kind": "mirrors", "file": "photos.tar", "size": 1000,
            "digest": "sha256:...", "mirrors": [{"kind": "http", "url": "https://..."}]}`.
        target: output file; missing after an error.
        partial: folder of partial downloads, which the next call continues, and of Debian packages,
            which may contain further files.
        what: the dataset or model, for messages.

    Raises:
        UserError: no mirror gave the content; the message says what each gave instead.
    """
    mirrors = mirrors_of(source)
    to_try = list(mirrors)
    problems = {}  # by the mirror's label in messages
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        staged = Path(folder) / source["file"]
        for pause in PAUSES:
            time.sleep(pause if to_try else 0)
            for mirror in list(to_try):
                label = _label_of(mirror)
                fetch_from_mirror = FETCHERS[mirror["kind"]]
                try:
                    fetch_from_mirror(mirror, source, staged, partial, what)
                except UserError as error:
                    problem = redacted(str(error)).rstrip(".")
                    log.warning("%s: no %s from %s: %s", what, source["file"], label, problem)
                    problems[label] = problem
                    if not isinstance(error, curl.PassingError):
                        to_try.remove(mirror)
                    continue
                # Only in the log: the record is the same whichever mirror was used.
                log.info("%s: %s is from %s", what, source["file"], label)
                shutil.move(staged, target)
                return
    reasons = "; ".join(f"{label}: {problem}" for label, problem in problems.items())
    raise UserError(
        f"{what}: no mirror gave {source['file']} ({reasons}). Check the network and run again to "
        f"resume, or {advice(source['file'], mirrors)}."
    )


def unpack(
    packed_file: Path, mirror: Mapping[str, Any], source: Mapping[str, Any], target: Path
) -> None:
    """Write the content packed in a file of a mirror.

    Args:
        packed_file: gzip file or Debian package.
        mirror: says how: `{"kind": "http", "compression": "gzip", ...}`.
        source: states the content's file name, size in bytes and digest.
        target: output file; missing after an error.

    Raises:
        UserError: the file is damaged, or lacks the content or has another one.
    """
    try:
        with ExitStack() as opened:
            stream: IO[bytes] | gzip.GzipFile
            if mirror["kind"] == "apt":
                stream = opened.enter_context(debian.opened_member(packed_file, mirror["member"]))
            else:
                stream = opened.enter_context(open(packed_file, "rb"))
            if "compression" in mirror:
                stream = opened.enter_context(gzip.open(stream))
            _write(stream, target, source["size"])
        refuse_other_content(target, source)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _write(stream: IO[bytes] | gzip.GzipFile, target: Path, size: int) -> None:
    """Write a stream's bytes to a file; a UserError if there are more than `size`."""
    bytes_left = size + 1  # one more byte shows that the content is too long
    with open(target, "wb") as file:
        try:
            while chunk := stream.read(min(CHUNK, bytes_left)):
                file.write(chunk)
                bytes_left -= len(chunk)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"what was received is no complete gzip file ({error})") from error
    if bytes_left == 0:
        raise UserError(f"what was received unpacks to more than {size} bytes")


def refuse_other_content(path: Path, source: Mapping[str, Any]) -> None:
    """Raise a UserError if a file differs from the source's digest; it says what was received."""
    try:
        verify_digest(path, source["digest"], source["file"])
    except UserError:
        with open(path, "rb") as file:
            is_web_page = file.read(512).lstrip().startswith(WEB_PAGE)
        received = f"a different file of {path.stat().st_size} bytes"
        if is_web_page:
            received = "a web page (a login, a confirmation or an error)"
        raise UserError(f"{received} was received instead of the pinned file") from None


def _fetch_by_http(
    mirror: Mapping[str, Any], source: Mapping[str, Any], staged: Path, partial: Path, what: str
) -> None:
    """Write the content to `staged`; a partial file, even of another mirror, is continued."""
    file = partial / f"{what}-{source['file']}"
    size = largest = source.get("size")
    if is_packed(mirror):
        file = file.with_name(f"{file.name}.gz")
        size = None  # the compressed size is unknown
        largest = int(source["size"] * (1 + GZIP_OVERHEAD)) + GZIP_HEADER
    while True:
        bytes_before = file.stat().st_size if file.exists() else 0
        is_whole = bytes_before > 0 and bytes_before == size
        if not is_whole:
            curl.fetch(mirror["url"], file, largest, what)
        try:
            if is_packed(mirror):
                unpack(file, mirror, source, staged)
                file.unlink()
            else:
                refuse_other_content(file, source)
                shutil.move(file, staged)
            return
        except UserError:
            file.unlink()
            if bytes_before == 0:  # all bytes are from this mirror, so it has another file
                raise
            # The partial file may have been another mirror's, so fetch the whole file.


def _fetch_by_apt(
    mirror: Mapping[str, Any], source: Mapping[str, Any], staged: Path, partial: Path, what: str
) -> None:
    """Write the content to `staged`; the package is kept, as other jobs may need files in it."""
    partial.mkdir(parents=True, exist_ok=True)
    package = partial / f"{mirror['package']}.deb"
    with locked(package.with_suffix(".lock")):
        if not package.is_file():
            debian.fetch_package(mirror["package"], package)
        try:
            unpack(package, mirror, source, staged)
        except UserError:
            package.unlink()  # the next run must fetch it again
            raise


def _fetch_by_hub(
    mirror: Mapping[str, Any], source: Mapping[str, Any], staged: Path, partial: Path, what: str
) -> None:
    """Write the content to `staged`, from the hub client's cache."""
    cached = fetch_from_hub(mirror)
    if is_packed(mirror):
        unpack(cached, mirror, source, staged)
    else:
        refuse_other_content(cached, source)
        shutil.copyfile(cached, staged)


# Functions by the mirror's kind; they write the content or raise a UserError.
FETCHERS = {"http": _fetch_by_http, "apt": _fetch_by_apt, "hub": _fetch_by_hub}


def _label_of(mirror: Mapping[str, Any]) -> str:
    """For messages: `Debian's package x`, `the hub's repo, path`, or the URL without secrets."""
    if mirror["kind"] == "apt":
        return f"Debian's package {mirror['package']}"
    if mirror["kind"] == "hub":
        return f"the hub's {mirror['repo']}, {mirror['path']}"
    return redacted(mirror["url"])
