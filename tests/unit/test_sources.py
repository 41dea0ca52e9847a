"""Sources of the catalogue: what jobs depend on, what is hidden, and what is refused."""

import pytest

from rib.base.errors import UserError
from rib.schema.addresses import content_of, mirrors_of, without_addresses

DIGEST = f"sha256:{'0' * 64}"
PACKED = {"kind": "http", "url": "https://example.org/a.gz", "compression": "gzip"}
IN_PACKAGE = {"kind": "apt", "package": "set", "member": "usr/share/set/a.idx"}
SOURCE = {
    "kind": "mirrors",
    "file": "a.idx",
    "size": 9,
    "digest": DIGEST,
    "mirrors": [PACKED, IN_PACKAGE, {"kind": "http", "url": "https://example.org/a?x=secret"}],
}


def test_a_jobs_settings_have_no_addresses():
    content = {"file": "a.idx", "size": 9, "digest": DIGEST}
    http = {"kind": "http", "urls": ["https://example.org/a"], **content}
    assert content_of(SOURCE) == content_of(http) == content
    assert without_addresses(SOURCE) == content
    wheel = {"kind": "pypi", "package": "p", **content}
    assert content_of(wheel) == content and without_addresses(wheel) == wheel
    folder = {"kind": "folder", "path": "a", "file": "a.tar", "listing": "x"}
    assert content_of(folder) == folder, "without a digest, the source is what identifies it"
    assert mirrors_of(http) == [{"kind": "http", "url": "https://example.org/a"}]


def test_secrets_of_mirrors_are_not_in_entries(with_entries):
    catalog = with_entries(datasets={"mine": {"source": SOURCE}})
    (source,) = catalog.datasets["mine"].archives
    assert source["mirrors"][2]["url"] == "https://example.org/a?[redacted]"
    assert catalog.with_addresses("mine", source) == SOURCE


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mirrors": []}, "mirrors"),
        ({"mirrors": [{"kind": "http"}]}, "'url' is missing in .*mirrors.0"),
        ({"mirrors": [{**IN_PACKAGE, "package": "-o"}]}, "mirrors.0.package"),
        ({"mirrors": [{**IN_PACKAGE, "member": "../x"}]}, "mirrors.0.member"),
        ({"mirrors": [{**PACKED, "url": "https://me:secret@example.org/a"}]}, "mirrors.0.url"),
        ({"digest": None}, "'digest' is missing"),
    ],
)
def test_a_bad_mirror_is_refused_with_its_key(with_entries, changes, key):
    source = {name: value for name, value in {**SOURCE, **changes}.items() if value is not None}
    with pytest.raises(UserError, match=key) as refused:
        _ = with_entries(datasets={"mine": {"source": source}}).sources
    assert "secret" not in str(refused.value)
