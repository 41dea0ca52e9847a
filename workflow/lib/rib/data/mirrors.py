"""One content from the first of several mirrors that has it: URLs, Debian's packages, the hub.

What is stored is the content, the same bytes whichever mirror it came from: its digest decides.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.locks import locked
from rib.base.progress import log
from rib.base.text import redacted
from rib.data.archive_folders import advice
from rib.data.content import Content, is_packed
from rib.data.debian import fetch_package
from rib.data.http import SECONDS_TO_ANSWER, STALL, Transfer, fetch
from rib.data.hub import fetch_from_hub

LARGEST_PACKAGE = 4 << 30  # bytes of a .deb that is fetched from a URL


@dataclass(frozen=True)
class _Request:
    """A content to fetch, and what is the same for all of its mirrors."""

    content: Content
    staged: Path  # where it is written
    partial: Path  # folder of partial downloads and of packages, kept between runs
    name: str  # the dataset or model, for the log
    seconds_to_answer: float  # see rib.data.http.Transfer


def fetch_content(
    content: Content,
    mirrors: Sequence[Mapping[str, Any]],
    target: Path,
    partial: Path,
    name: str,
) -> None:
    """Fetch a content from the first mirror that has it.

    Of several mirrors, one that can't be reached costs at most ten seconds. One that is alone is
    tried for some minutes.

    Args:
        mirrors: as in the catalogue (rib.config.source_entries.Mirror), tried in this order.
        target: where the content is written; there is no file after an error.
        partial: folder of partial downloads, which the next call resumes, and of Debian packages,
            from which the next contents are taken.
        name: the dataset or model, for messages.

    Raises:
        UserError: no mirror gave it; the message says what each gave instead.
    """
    seconds_to_answer = SECONDS_TO_ANSWER if len(mirrors) > 1 else math.inf
    problems = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        staged = Path(folder) / content.file
        request = _Request(content, staged, partial, name, seconds_to_answer)
        for mirror in mirrors:
            fetch_from_mirror = FETCHERS[mirror["kind"]]
            try:
                fetch_from_mirror(mirror, request)
            except UserError as error:
                problem = redacted(f"{label_of(mirror)}: {error}").rstrip(".")
                log.warning("%s: no %s from %s", name, content.file, problem)
                problems.append(problem)
                continue
            # Not in the record, which is the same whichever mirror was used.
            log.info("%s: %s is from %s", name, content.file, redacted(label_of(mirror)))
            shutil.move(staged, target)
            return
    raise UserError(
        f"{name}: no mirror gave {content.file} ({'; '.join(problems)}). Check the network and run "
        f"again to resume, or {advice(content.file, mirrors)}."
    )


def label_of(mirror: Mapping[str, Any]) -> str:
    """What messages call a mirror, such as `Debian's package fonts-noto` or its URL.

    A URL may contain a signature.
    """
    if mirror["kind"] == "apt":
        return f"Debian's package {mirror['package']}"
    if mirror["kind"] == "hub":
        return f"the hub's {mirror['repo']}, {mirror['path']}"
    url: str = mirror["url"]
    return url


def _fetch_by_http(mirror: Mapping[str, Any], request: _Request) -> None:
    """Fetch the content from a URL: as it is, compressed, or in a Debian package."""

    def fetch_to(package: Path) -> None:
        """Fetch the Debian package to a path."""
        _fetch_package_by_http(mirror, request, package)

    if "member" in mirror:  # the content's path in a Debian package
        _take_from_package(mirror, request, _hash_of_address(mirror), fetch_to)
    elif is_packed(mirror):
        _fetch_compressed(mirror, request)
    else:
        _fetch_as_it_is(mirror, request)


def _fetch_as_it_is(mirror: Mapping[str, Any], request: _Request) -> None:
    """Fetch the content itself; what one mirror began, the next ones resume."""
    content = request.content
    transfer = Transfer(
        url=mirror["url"],
        partial_file=request.partial / f"{_short_hash(content.digest)}-{content.file}",
        size=content.size,
        largest=content.size,
        seconds_to_answer=request.seconds_to_answer,
    )
    fetch(transfer, content.difference, request.name)
    shutil.move(transfer.partial_file, request.staged)


def _fetch_compressed(mirror: Mapping[str, Any], request: _Request) -> None:
    """Fetch the compressed content, of which each mirror may have other bytes, and unpack it."""
    content = request.content
    of_mirror = f"{_short_hash(content.digest)}-{_hash_of_address(mirror)}"

    def problem_unpacking(compressed_file: Path) -> str | None:
        """Unpack the compressed content; say what is wrong with it, or None."""
        return _problem_unpacking(mirror, request, compressed_file)

    transfer = Transfer(
        url=mirror["url"],
        partial_file=request.partial / f"{of_mirror}-{content.file}.packed",
        size=None,
        largest=content.largest_packed,
        seconds_to_answer=request.seconds_to_answer,
    )
    fetch(transfer, problem_unpacking, request.name)
    transfer.partial_file.unlink()


def _problem_unpacking(
    mirror: Mapping[str, Any], request: _Request, packed_file: Path
) -> str | None:
    """Unpack the content from a file to where it is wanted; say what is wrong, or None.

    Args:
        mirror: says how the content is packed, compressed or in a Debian package.
        packed_file: the file that the mirror gave.
    """
    try:
        request.content.unpack(packed_file, mirror, request.staged)
    except UserError as error:
        return str(error)
    return None


def _take_from_package(
    mirror: Mapping[str, Any],
    request: _Request,
    file_name: str,
    fetch_to: Callable[[Path], None],
) -> None:
    """Unpack the content from a Debian package, which is fetched unless it is there already.

    The package is kept for other contents in it, whose jobs wait until one of them has fetched it.

    Args:
        file_name: of the package, without `.deb`.
        fetch_to: fetches the package and writes it to a path.

    Raises:
        UserError: the package can't be fetched, or lacks the content.
    """
    request.partial.mkdir(parents=True, exist_ok=True)
    package = request.partial / f"{file_name}.deb"
    with locked(request.partial / f"{file_name}.lock"):
        if package.is_file() and _problem_unpacking(mirror, request, package) is None:
            return
        fetch_to(package)
        problem = _problem_unpacking(mirror, request, package)
        if problem is not None:
            package.unlink()
            raise UserError(problem)


def _fetch_package_by_http(mirror: Mapping[str, Any], request: _Request, package: Path) -> None:
    """Fetch a Debian package from a URL."""
    transfer = Transfer(
        url=mirror["url"],
        partial_file=package.with_suffix(".part"),
        size=None,
        largest=LARGEST_PACKAGE,
        seconds_to_answer=request.seconds_to_answer,
    )
    fetch(transfer, _no_problem, request.name)
    os.replace(transfer.partial_file, package)


def _no_problem(package: Path) -> None:
    """Find nothing wrong with a package, which is checked later, when it is read."""


def _fetch_by_apt(mirror: Mapping[str, Any], request: _Request) -> None:
    """Fetch a Debian package by apt-get, and unpack the content from it to where it is wanted."""
    seconds_to_answer = min(request.seconds_to_answer, STALL)

    def fetch_to(package: Path) -> None:
        """Fetch the Debian package to a path."""
        fetch_package(mirror["package"], package, seconds_to_answer, request.name)

    _take_from_package(mirror, request, mirror["package"], fetch_to)


def _fetch_by_hub(mirror: Mapping[str, Any], request: _Request) -> None:
    """Fetch the content from a repository of the hub."""
    cached = fetch_from_hub(mirror)
    if is_packed(mirror):
        request.content.unpack(cached, mirror, request.staged)
        return
    difference = request.content.difference(cached)
    if difference is not None:
        raise UserError(difference)
    shutil.copyfile(cached, request.staged)


# By the kind of a mirror: functions that write the content to its place, or raise a UserError.
FETCHERS = {"http": _fetch_by_http, "apt": _fetch_by_apt, "hub": _fetch_by_hub}


def _hash_of_address(mirror: Mapping[str, Any]) -> str:
    """Short hash of a URL; another signature is the same address."""
    return _short_hash(redacted(mirror["url"]))


def _short_hash(text: str) -> str:
    """16 hex digits that stand for a text in a file name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
