"""What a content is taken from: Debian packages and gzip files, hostile ones too."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.config.sources import content_of, mirrors_of, without_addresses
from rib.data.archives import FREE
from rib.data.content import Content
from rib.data.debian import read_member
from rib.data.download import download
from rib.data.variables import ARCHIVES
from tiny.debian import FOLDER, MAGIC, ar_file, package, package_around
from tiny.tiers import examples

DATA = bytes(range(256)) * 400
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
CONTENT = Content("a.idx", DIGEST, len(DATA))
MEMBER = f"{FOLDER}/a.idx"
PACKED = {"kind": "http", "url": "https://example.org/a.gz", "compression": "gzip"}
IN_PACKAGE = {"kind": "apt", "package": "set", "member": MEMBER}
SOURCE = {
    "kind": "mirrors",
    "file": "a.idx",
    "size": len(DATA),
    "digest": DIGEST,
    "mirrors": [
        PACKED,
        {**IN_PACKAGE, "member": f"{MEMBER}.gz", "compression": "gzip"},
        {"kind": "http", "url": "https://example.org/own.deb?x=secret", "member": MEMBER},
    ],
}


def member(data, folder):
    path = folder / "set.deb"
    path.write_bytes(data)
    return read_member(path, MEMBER, len(DATA), folder)


@pytest.mark.parametrize("compression", ["xz", "gz", "zst", ""])
def test_a_file_of_a_package_is_read(tmp_path, compression):
    files = {"other": b"x", "a.idx": DATA, "last": b"y"}
    assert member(package(files, compression), tmp_path) == DATA


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "none"])
def test_packages_of_dpkg_are_read(tmp_path, compression):
    tree = tmp_path / "tree"
    (tree / FOLDER).mkdir(parents=True)
    (tree / FOLDER / "a.idx").write_bytes(DATA)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: set\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.org>\n"
        "Description: d\n"
    )
    built = ["dpkg-deb", f"-Z{compression}", "--build", str(tree), str(tmp_path / "set.deb")]
    subprocess.run(built, check=True, capture_output=True)
    assert read_member(tmp_path / "set.deb", MEMBER, len(DATA), tmp_path) == DATA


def special(kind, link=""):
    info = tarfile.TarInfo()
    info.type = kind
    info.linkname = link
    return info


GOOD = package({"a.idx": DATA})
BINARY = ar_file("debian-binary", b"2.0\n")
DAMAGED = {
    "empty": (b"", "does not begin as an ar archive"),
    "a web page": (b"<!doctype html>" * 100, "does not begin as an ar archive"),
    "no files": (MAGIC, "its first file is not debian-binary"),
    "another ar archive": (MAGIC + ar_file("a.o", b"x"), "its first file is not debian-binary"),
    "another version": (MAGIC + ar_file("debian-binary", b"3.0\n"), "unknown format"),
    "no tar": (MAGIC + BINARY, "0 files data.tar"),
    "two tars": (GOOD + ar_file("data.tar.gz", b"x"), "2 files data.tar"),
    "truncated": (GOOD[:-200], "truncated"),
    "truncated in a header": (MAGIC + BINARY[:30], "no header is valid at byte 8"),
    "header without its end": (
        MAGIC + ar_file("debian-binary", b"2.0\n", end=b"xx"),
        "no header is valid",
    ),
    "negative size": (MAGIC + ar_file("debian-binary", b"2.0\n", size="-4"), "no header is valid"),
    "size with a sign": (
        MAGIC + ar_file("debian-binary", b"2.0\n", size="+4"),
        "no header is valid",
    ),
    "size that is no number": (
        MAGIC + ar_file("debian-binary", b"2.0\n", size="4 4"),
        "no header is valid",
    ),
    "size beyond the file": (
        MAGIC + BINARY + ar_file("data.tar.xz", b"x", size="9999999999"),
        "truncated",
    ),
    "thousands of files": (
        MAGIC + BINARY + 5000 * ar_file("x", b""),
        "no header is valid at byte",
    ),
    "without the file": (package({"b.idx": DATA}), f"no file '{MEMBER}'"),
    "a folder in its place": (package({"a.idx": special(tarfile.DIRTYPE)}), "no file"),
    "a device in its place": (package({"a.idx": special(tarfile.CHRTYPE)}), "no file"),
    "a symbolic link in its place": (
        package({"a.idx": special(tarfile.SYMTYPE, "/etc/passwd")}),
        "as a link",
    ),
    "a hard link in its place": (
        package({"b": DATA, "a.idx": special(tarfile.LNKTYPE, f"./{FOLDER}/b")}),
        "as a link",
    ),
    "a name outside": (package({"../../../../etc/x": b"x", "a.idx": DATA}), "points outside"),
    "a larger file": (package({"a.idx": DATA + b"x"}), "contains .* of more than"),
    "not xz": (package_around(b"x" * 1000, "data.tar.xz"), "can't be read as an archive"),
    "not zstd": (package_around(b"x" * 1000, "data.tar.zst"), "no valid zstd file"),
}


@pytest.mark.parametrize(
    ("data", "words"), examples(DAMAGED, ["truncated", "a symbolic link in its place"])
)
def test_what_is_no_whole_package_is_refused(tmp_path, data, words):
    with pytest.raises(UserError, match=words):
        member(data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set.deb"]


@pytest.mark.thorough
@pytest.mark.parametrize("compression", ["xz", "zst"])
def test_a_package_that_unpacks_to_too_much_is_refused(tmp_path, compression):
    data = package({"zeros": bytes(2 * FREE), "a.idx": DATA}, compression)
    with pytest.raises(UserError, match="unpacks to more than"):
        member(data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set.deb"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(DATA + b"x"), f"more than the {len(DATA)} bytes"),
        (gzip.compress(bytes(1 << 26)), f"more than the {len(DATA)} bytes"),
        (gzip.compress(DATA)[:-9], "no complete gzip file"),
        (DATA, "no complete gzip file"),
        (gzip.compress(DATA[1:]), "different file of 102399 bytes"),
        (gzip.compress(DATA[::-1]), "different file of 102400 bytes"),
    ],
    ids=["a byte more", "bomb", "truncated", "not gzip", "a byte less", "other bytes"],
)
def test_what_does_not_unpack_to_the_content_is_refused(tmp_path, data, words):
    (tmp_path / "a.gz").write_bytes(data)
    with pytest.raises(UserError, match=words):
        CONTENT.unpack(tmp_path / "a.gz", PACKED, tmp_path / "a.idx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gz"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two archive folders of the user's; the second one, which is returned, has what is wanted."""
    for name in ("none", "mine"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(ARCHIVES, os.pathsep.join([f"{tmp_path}/none", f"{tmp_path}/mine"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


FORMS = {
    "as it is": ("a.idx", DATA),
    "in gzip": ("a.gz", gzip.compress(DATA)),
    "in a package of any version": (
        "set_1~2.3-4_all.deb",
        package({"a.idx.gz": gzip.compress(DATA)}),
    ),
    "in a package at a URL": ("own.deb", package({"a.idx": DATA})),
}


@pytest.mark.parametrize(("name", "data"), examples(FORMS, FORMS))
def test_archives_take_each_form_in_which_a_mirror_has_the_content(mine, name, data):
    (mine / name).write_bytes(data)
    download(SOURCE, Path("out.idx"), "set")
    assert Path("out.idx").read_bytes() == DATA
    assert Path("out.idx").is_symlink() == (name == "a.idx")


def test_another_file_of_that_name_in_archives_is_refused(mine):
    (mine / "a.gz").write_bytes(gzip.compress(DATA[::-1]))
    with pytest.raises(UserError, match=rf"set: a\.idx can't be taken from {mine}/a\.gz: .*Remove"):
        download(SOURCE, Path("out.idx"), "set")
    assert not Path("out.idx").exists()


def test_a_jobs_settings_have_no_addresses():
    content = {"file": "a.idx", "size": len(DATA), "digest": DIGEST}
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
    assert source["mirrors"][2]["url"] == "https://example.org/own.deb?[redacted]"
    assert catalog.with_addresses("mine", source) == SOURCE


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mirrors": []}, "mirrors"),
        ({"mirrors": [{"kind": "ftp"}]}, "mirrors.0.kind"),
        ({"mirrors": [{"kind": "http"}]}, "'url' is missing in .*mirrors.0"),
        ({"mirrors": [{"kind": "apt", "package": "set"}]}, "'member' is missing"),
        ({"mirrors": [{**IN_PACKAGE, "package": "-o"}]}, "mirrors.0.package"),
        ({"mirrors": [{**IN_PACKAGE, "member": "../x"}]}, "mirrors.0.member"),
        ({"mirrors": [{**PACKED, "compression": "rar"}]}, "mirrors.0.compression"),
        ({"mirrors": [{**PACKED, "url": "https://me:secret@example.org/a"}]}, "mirrors.0.url"),
        ({"size": None}, "'size' is missing"),
        ({"digest": None}, "'digest' is missing"),
    ],
)
def test_a_bad_mirror_is_refused_with_its_key(with_entries, changes, key):
    source = {name: value for name, value in {**SOURCE, **changes}.items() if value is not None}
    with pytest.raises(UserError, match=key) as refused:
        _ = with_entries(datasets={"mine": {"source": source}}).sources
    assert "secret" not in str(refused.value)
