"""Sources of the catalogue: what identifies their content, and where it may be had. No torch."""

from collections.abc import Mapping
from typing import Any

from rib.base.text import redacted

CONTENT = ("file", "size", "digest")  # keys that identify a pinned content, wherever it is
ADDRESSES = ("urls", "mirrors")  # keys with addresses


def content_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """What a job that fetches a source depends on.

    It is the file's name, size and pinned digest, so that no job runs again if the same bytes are
    had from another address or another kind of source. Without a digest it is the whole source.
    """
    if "digest" not in source:
        return dict(source)
    return {key: source[key] for key in CONTENT if key in source}


def without_addresses(source: Mapping[str, Any]) -> dict[str, Any]:
    """What later jobs depend on: the content of a source, whichever address it is had from.

    For example {"file": "photos.tar", "size": 1000, "digest": "sha256:..."} of a source with URLs,
    and of a file of this machine. A source without addresses, such as a package, is returned whole.
    """
    if source["kind"] == "file" or any(key in source for key in ADDRESSES):
        return content_of(source)
    return dict(source)


def mirrors_of(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a source's content may be had, in the order in which it is tried.

    They are `Mirror` of rib.config.source_entries. Empty for sources that are
    fetched by a package client alone, or not at all.
    """
    if source["kind"] == "http":
        return [{"kind": "http", "url": url} for url in source["urls"]]
    return [dict(mirror) for mirror in source.get("mirrors", [])]


def redacted_addresses(source: Mapping[str, Any]) -> dict[str, Any]:
    """The addresses of a source without query strings, which may be signatures."""
    redacted_keys: dict[str, Any] = {}
    if "urls" in source:
        redacted_keys["urls"] = [redacted(url) for url in source["urls"]]
    if "mirrors" in source:
        redacted_keys["mirrors"] = [_redacted_mirror(mirror) for mirror in source["mirrors"]]
    return redacted_keys


def _redacted_mirror(mirror: Mapping[str, Any]) -> dict[str, Any]:
    """A mirror without the query string of its URL, if it has one."""
    if "url" not in mirror:
        return dict(mirror)
    return {**mirror, "url": redacted(mirror["url"])}
