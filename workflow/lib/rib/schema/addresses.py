"""Sources of the catalogue: identity of their content, and places to get it. No torch."""

from collections.abc import Mapping
from typing import Any

from rib.base.text import redacted

CONTENT = ("file", "size", "digest")  # keys that identify a pinned content, wherever it is
ADDRESSES = ("urls", "mirrors")  # keys with addresses


def content_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """File name, size and digest of a source: all that a job which fetches it depends on.

    For example {"file": "photos.tar", "size": 1000, "digest": "sha256:..."}, without the keys kind
    and urls.

    The job doesn't run again if the same bytes come from another address or kind of source. A
    source without digest is returned whole.
    """
    if "digest" not in source:
        return dict(source)
    return {key: source[key] for key in CONTENT if key in source}


def without_addresses(source: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a source, whatever its address: all that later jobs depend on.

    For example {"file": "photos.tar", "size": 1000, "digest": "sha256:..."} for a source with URLs
    or a file on this machine. A source without addresses, such as a package, is returned whole.
    """
    if source["kind"] == "file" or any(key in source for key in ADDRESSES):
        return content_of(source)
    return dict(source)


def mirrors_of(source: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Places of a source's content, in the order in which they are tried.

    For example [{"kind": "http", "url": "https://..."}], as rib.schema.source_entries.Mirror. Empty
    for sources that only a package client fetches, or nobody.
    """
    if source["kind"] == "http":
        return [{"kind": "http", "url": url} for url in source["urls"]]
    return [dict(mirror) for mirror in source.get("mirrors", [])]


def is_packed(mirror: Mapping[str, Any]) -> bool:
    """Whether a mirror has the content inside another file: in gzip, or in a Debian package.

    `mirror` is an entry of `mirrors_of`, such as {"kind": "http", "url": "https://..."}.
    """
    return "compression" in mirror or mirror["kind"] == "apt"


def redacted_addresses(source: Mapping[str, Any]) -> dict[str, Any]:
    """Addresses of a source without query strings, which may be signatures.

    For example {"urls": ["https://example.org/photos.tar"]}, or {"mirrors": [...]}.
    """
    redacted_keys: dict[str, Any] = {}
    if "urls" in source:
        redacted_keys["urls"] = [redacted(url) for url in source["urls"]]
    if "mirrors" in source:
        redacted_keys["mirrors"] = [_redacted_mirror(mirror) for mirror in source["mirrors"]]
    return redacted_keys


def _redacted_mirror(mirror: Mapping[str, Any]) -> dict[str, Any]:
    """A mirror with its URL, if it has one, without query string."""
    if "url" not in mirror:
        return dict(mirror)
    return {**mirror, "url": redacted(mirror["url"])}
