"""One content from the first of several mirrors that has it: URLs, Debian's packages, the hub.

What is stored is the content, the same bytes whichever mirror it came from: its digest decides.
A mirror is as in the catalogue (rib.config.source_entries.Mirror).
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
from rib.config.sources import is_packed, mirrors_of
from rib.data import curl, debian
from rib.data.archive_folders import advice

PAUSES = (0.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each round of attempts
CHUNK = 1 << 20  # bytes read at once
# What gzip adds at most to bytes that it can't compress: far less than a hundredth, and a header.
GZIP_OVERHEAD = 0.01
GZIP_HEADER = 64 << 10  # bytes
WEB_PAGE = b"<"  # how one begins, after white space


def fetch_content(source: Mapping[str, Any], target: Path, partial: Path, what: str) -> None:
    """Fetch the content of a source from the first mirror that has it.

    Mirrors are tried in turn. One that fails for good, such as one with other bytes, is left; those
    that may answer later are tried again after a pause, up to five times.

    Args:
        source: a source of the catalogue with mirrors or URLs (rib.config.source_entries).
        target: where the content is written; there is no file after an error.
        partial: folder of partial downloads, which the next call continues, and of Debian packages,
            from which the next contents are taken.
        what: the dataset or model, for messages.

    Raises:
        UserError: no mirror gave it; the message says what each gave instead.
    """
    mirrors = mirrors_of(source)
    to_try = list(mirrors)
    problems = {}  # by the label of the mirror
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
                # Not in the record, which is the same whichever mirror was used.
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
    """Write the content that a file has packed.

    Args:
        packed_file: a file as the mirror gives it: in gzip, or a Debian package.
        mirror: says how the content is packed.
        source: states the content's size in bytes and its digest.
        target: where the content is written; nothing is left there after an error.

    Raises:
        UserError: the file is damaged, lacks the content, or has another one.
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
    """Write a stream to a file; of one that is too long only a byte more is read."""
    bytes_left = size + 1
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
    """Raise a UserError if a file lacks the pinned digest of a source."""
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
    """Fetch the content from a URL, as it is or in gzip; what one began, the next ones continue."""
    file = partial / f"{what}-{source['file']}"
    size = largest = source.get("size")
    if is_packed(mirror):
        file = file.with_name(f"{file.name}.gz")
        size = None  # of the compressed file
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
            if bytes_before == 0:  # all bytes came from this mirror, so it has another file
                raise
            # Otherwise the beginning may be another mirror's, so the file is fetched again.


def _fetch_by_apt(
    mirror: Mapping[str, Any], source: Mapping[str, Any], staged: Path, partial: Path, what: str
) -> None:
    """Fetch a Debian package by apt-get, and unpack the content from it.

    The package is kept for other contents in it, whose jobs wait until one of them has fetched it.
    """
    partial.mkdir(parents=True, exist_ok=True)
    package = partial / f"{mirror['package']}.deb"
    with locked(package.with_suffix(".lock")):
        if not package.is_file():
            debian.fetch_package(mirror["package"], package)
        try:
            unpack(package, mirror, source, staged)
        except UserError:
            package.unlink()  # the next run fetches it again
            raise


def _fetch_by_hub(
    mirror: Mapping[str, Any], source: Mapping[str, Any], staged: Path, partial: Path, what: str
) -> None:
    """Fetch the content from a repository of the hub."""
    cached = fetch_from_hub(mirror)
    if is_packed(mirror):
        unpack(cached, mirror, source, staged)
    else:
        refuse_other_content(cached, source)
        shutil.copyfile(cached, staged)


# By the kind of a mirror: functions that write the content to its place, or raise a UserError.
FETCHERS = {"http": _fetch_by_http, "apt": _fetch_by_apt, "hub": _fetch_by_hub}


def _label_of(mirror: Mapping[str, Any]) -> str:
    """What messages call a mirror: its URL without a signature, or `Debian's package x`."""
    if mirror["kind"] == "apt":
        return f"Debian's package {mirror['package']}"
    if mirror["kind"] == "hub":
        return f"the hub's {mirror['repo']}, {mirror['path']}"
    return redacted(mirror["url"])
