import contextlib
import gzip
import io
import random
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data import archives, unzip
from rib.data.archives import TooLargeError, archive_members
from rib.data.variables import ARCHIVE_RATIO, PHOTO_MEGABYTES
from tiny.photos import encrypted, tar, zipped
from tiny.tiers import examples, first

FILES = {"a/one.txt": b"one", "a/two.txt": b"two" * 1000, "three.txt": b""}


@pytest.fixture(params=["zip", "tar", "tgz", "zip in memory", "tar in memory"])
def archive(request, tmp_path):
    """Arguments of `archive_members` for an archive with `FILES` and a folder."""
    kind, _, in_memory = request.param.partition(" ")
    if kind == "zip":
        path = zipped(tmp_path / "archive", FILES)
        with zipfile.ZipFile(path, "a") as made:
            made.mkdir("b")
    else:
        path = tar(tmp_path / "archive", FILES)
        with tarfile.open(path, "a") as made:
            folder = tarfile.TarInfo("b")
            folder.type = tarfile.DIRTYPE
            made.addfile(folder)
    if kind == "tgz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if in_memory:
        data = path.read_bytes()
        path.unlink()
        return {"path": Path("outer.zip/archive"), "file": io.BytesIO(data)}
    return {"path": path}


def read_all(path, **arguments):
    return [read() for _, read in archive_members(path, **arguments)]


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_members_are_files_in_their_order_with_their_bytes(archive):
    assert [(name, read()) for name, read in archive_members(**archive)] == list(FILES.items())


def test_only_wanted_members_are_given(archive):
    for wanted in (
        ["three.txt", "a/one.txt", "nothing"],
        lambda name: name in ("three.txt", "a/one.txt"),
    ):
        assert [name for name, _ in archive_members(**archive, wanted=wanted)] == [
            "a/one.txt",
            "three.txt",
        ]
        if "file" in archive:
            archive["file"].seek(0)
    assert list(archive_members(**archive, wanted=[])) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
@pytest.mark.parametrize("made", [tar, zipped])
def test_members_that_point_outside_are_refused(tmp_path, made, name):
    path = made(tmp_path / "a", {name: b""})
    with pytest.raises(UserError, match=f"{path} .*{name}"):
        list(archive_members(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_that_is_wanted_is_refused_and_another_passed_over(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, "file"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("file"))
    assert [name for name, _ in archive_members(tmp_path / "a.tar", wanted=["file"])] == ["file"]
    with pytest.raises(UserError, match="a.tar .*'link'"):
        list(archive_members(tmp_path / "a.tar"))


@pytest.mark.parametrize("made", [tar, zipped])
def test_a_member_above_the_limit_is_refused_when_it_is_read(tmp_path, monkeypatch, made):
    path = made(tmp_path / "a", {"large": bytes(10**6 + 1), "small": b"1"})
    assert read_all(path, largest=10**6 + 1) == [bytes(10**6 + 1), b"1"]
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    for name, read in archive_members(path):
        if name == "large":
            with pytest.raises(
                TooLargeError,
                match=r"^/.*/a contains 'large' of more than 1\.00MB; .*photo_megabytes",
            ):
                read()
        else:
            assert read() == b"1"


def lying(path, size, kind):
    """A zip of which a member of zeros states another size, and the checksum of that many zeros."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.jpg", bytes(BOMB))
        (info,) = archive.infolist()
        info.file_size, info.CRC = size, zlib.crc32(bytes(min(size, BOMB)))
    return path


def lying_tar(path, size):
    """A tar of which a header states more bytes than follow."""
    data = bytearray(tar(path, {"a.jpg": b"x"}).read_bytes())
    data[124:136] = b"%011o\0" % size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


def with_header(path, kind):
    """A compressed tar with an extended header of many bytes before its only file."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, size, of in (("long", BOMB, kind), ("a.jpg", 1, tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.size, info.type = size, of
            archive.addfile(info, io.BytesIO(bytes(size)))
    return path


def sparse(path):
    """A tar of a file that is one hole."""
    data = bytearray(lying_tar(path, 0).read_bytes())
    data[156:157], data[257:265], data[483:495] = b"S", b"ustar  \0", b"%011o\0" % BOMB
    data[386:410] = b"%011o\0" % BOMB + b"%011o\0" % 0
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


def with_map(path):
    """A compressed tar of a sparse file with a map of millions of parts (GNU's format 1.0)."""
    parts = 2_000_000
    body = b"%d\n" % parts + b"0\n0\n" * parts
    body += bytes(-len(body) % 512)
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(body)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": "9",
        }
        archive.addfile(info, io.BytesIO(body))
    return path


def with_globals(path):
    """A compressed tar with many global headers, each as large as it may be."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(100):
            value = b" %d=" % number + b"x" * 1_000_000 + b"\n"
            record = str(len(value) + 7).encode() + value
            info = tarfile.TarInfo("global")
            info.size, info.type = len(record), tarfile.XGLTYPE
            archive.addfile(info, io.BytesIO(record))
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    return path


BOMB = 100 << 20
BOMBS = {
    "a deflated zip": lambda path: lying(path, BOMB, zipfile.ZIP_DEFLATED),
    "a zip with LZMA": lambda path: lying(path, BOMB, zipfile.ZIP_LZMA),
    "a zip with bzip2": lambda path: lying(path, BOMB, zipfile.ZIP_BZIP2),
    "a zip that states 10 bytes": lambda path: lying(path, 10, zipfile.ZIP_DEFLATED),
    "a zip with bzip2 that states 10 bytes": lambda path: lying(path, 10, zipfile.ZIP_BZIP2),
    "a zip that states more than it has": lambda path: lying(path, 2 * BOMB, zipfile.ZIP_DEFLATED),
    "a tar": lambda path: tar(path, {"a.jpg": bytes(BOMB)}),
    "a tgz": lambda path: tar(path, {"a.jpg": bytes(BOMB)}, "w:gz"),
    "a tar with bzip2": lambda path: tar(path, {"a.jpg": bytes(BOMB)}, "w:bz2"),
    "a tar with xz": lambda path: tar(path, {"a.jpg": bytes(BOMB)}, "w:xz"),
    "a tar that states more than it has": lambda path: lying_tar(path, BOMB),
    "a tar that states gigabytes": lambda path: lying_tar(path, (8 << 30) - 1),
    "a hole in a tar": sparse,
    "a long name in a tar": lambda path: with_header(path, tarfile.GNUTYPE_LONGNAME),
    "a long link in a tar": lambda path: with_header(path, tarfile.GNUTYPE_LONGLINK),
    "attributes in a tar": lambda path: with_header(path, tarfile.XHDTYPE),
    "global attributes in a tar": lambda path: with_header(path, tarfile.XGLTYPE),
    "many global attributes in a tar": with_globals,
    "a map of holes in a tar": with_map,
}


@pytest.mark.attack("memory")
@pytest.mark.parametrize(
    "make",
    examples(
        BOMBS, {"a deflated zip", "a tgz", "a tar that states gigabytes", "a long name in a tar"}
    ),
)
def test_reading_takes_no_more_memory_than_the_limit_whatever_an_archive_states(
    tmp_path, monkeypatch, peak, make
):
    path = make(tmp_path / "a.archive")
    peak()  # what follows is measured
    monkeypatch.setenv(PHOTO_MEGABYTES, "8")
    try:
        assert read_all(path) == [bytes(10)]
    except UserError as error:
        assert str(error).startswith(f"{path} ")
    assert peak() < 20 << 20


ZEROS = 80 << 20  # bytes, of which no archive may unpack as many for nothing
COMPRESSIONS = ["gz", "bz2", "xz"]


@pytest.mark.attack("memory")
@pytest.mark.parametrize("kind", first(COMPRESSIONS))
@pytest.mark.parametrize("members", [1, 10], ids=["a large one", "several"])
def test_skipped_files_of_a_compressed_tar_count(tmp_path, monkeypatch, kind, members):
    files = {f"{number}.bin": bytes(ZEROS // members) for number in range(members)}
    path = tar(tmp_path / "a.tar", files | {"last.jpg": b"x"}, f"w:{kind}")
    monkeypatch.setenv(ARCHIVE_RATIO, "100")
    with pytest.raises(UserError, match=f"^{path} of .* more than 67.*limits.archive_ratio"):
        list(archive_members(path, wanted=["last.jpg"]))
    monkeypatch.setenv(ARCHIVE_RATIO, "1000000")
    assert read_all(path, wanted=["last.jpg"]) == [b"x"]


@pytest.mark.attack("memory")
def test_files_of_a_zip_count_by_the_sizes_that_they_state_if_they_are_wanted(tmp_path):
    files = {f"{number}.jpg": bytes(ZEROS // 4) for number in range(4)}
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=f"^{path} .*limits.archive_ratio"):
        list(archive_members(path))
    assert [name for name, _ in archive_members(path, wanted=["0.jpg", "3.jpg"])] == [
        "0.jpg",
        "3.jpg",
    ]


@pytest.mark.parametrize("kind", first(COMPRESSIONS))
@pytest.mark.parametrize("size", [250 << 10, (250 << 10) + 1])
@pytest.mark.parametrize("read", [True, False])
def test_each_byte_of_a_compressed_tar_is_unpacked_once(tmp_path, monkeypatch, kind, size, read):
    noise = random.Random(0).randbytes(size)  # which no compression makes smaller
    path = tar(
        tmp_path / "a.tar", {f"{number}.jpg": noise[number:] for number in range(4)}, f"w:{kind}"
    )
    monkeypatch.setattr(archives, "FREE", 4 * (size + 2048) + 10240)
    monkeypatch.setenv(ARCHIVE_RATIO, "0")
    for number, (_, read_member) in enumerate(archive_members(path)):
        assert not read or read_member() == noise[number:]


def test_an_archive_of_texts_is_within_the_limit(tmp_path, monkeypatch):
    """A table that unpacks to 20 bytes per byte."""
    digits = random.Random(0)
    table = "".join(
        f"n01440764/image_{n:07},0,0,500,375,{digits.choice('0123456789')}\n" for n in range(30_000)
    )
    path = tar(tmp_path / "a.tar", {"table.csv": table.encode()}, "w:xz")
    monkeypatch.setattr(archives, "FREE", 0)
    assert len(table) > 20 * path.stat().st_size
    assert read_all(path) == [table.encode()]


@pytest.mark.attack("data")
def test_a_tar_that_ends_in_a_zip_is_read_as_a_tar(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"evil.png": b"x"}).read_bytes()
    path = tar(tmp_path / "a.tar", {"good.png": b"1", "extra.zip": inner})
    assert [name for name, _ in archive_members(path)] == ["good.png", "extra.zip"]


def test_a_member_of_negative_size_is_refused_where_it_would_be_read_for_ever(tmp_path):
    path = tar(tmp_path / "a.tar", {"one": bytes(512), "other": bytes(512)})
    data = bytearray(path.read_bytes())
    header = data[1024:1536]  # what follows it would be itself
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.tar .*'other'"):
        list(archive_members(path))


def truncated(folder):
    path = tar(folder / "a.tgz", {"member": bytes(range(256)) * 400}, "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def edited(old, new):
    """A zip with a text in which some bytes are others."""

    def make(folder):
        path = zipped(folder / "a.zip", {"a.txt": b"0123456789"})
        path.write_bytes(path.read_bytes().replace(old, new))
        return path

    return make


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (truncated, "damaged"),
        (edited(b"0123456789", b"0123456780"), "damaged"),
        (edited(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x09\x00"), "format"),
        (lambda folder: folder / "nothing.zip", "read"),
    ],
    ids=[
        "truncated",
        "other bytes than its checksum's",
        "a compression that Python lacks",
        "missing",
    ],
)
def test_an_archive_that_cannot_be_read_is_named(tmp_path, make, why):
    path = make(tmp_path)
    with pytest.raises(UserError, match=f"^{path} .*{why}"):
        read_all(path)


@pytest.mark.parametrize(
    ("made", "reading"), [(zipped, "zipfile.ZipFile.open"), (tar, "tarfile.TarFile.extractfile")]
)
def test_any_error_of_reading_bytes_names_the_archive_and_only_too_little_memory_is_passed_on(
    tmp_path, monkeypatch, made, reading
):
    path = made(tmp_path / "a", {"a.txt": b"0123456789"})
    monkeypatch.setattr(reading, raising(IndexError()))
    with pytest.raises(UserError, match=f"^{path} "):
        read_all(path)
    monkeypatch.setattr(reading, raising(MemoryError()))
    with pytest.raises(MemoryError):
        read_all(path)


def test_a_size_that_no_memory_holds_is_damage(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {"a.txt": b"0123456789"})
    monkeypatch.setattr("zipfile.ZipFile.infolist", raising(MemoryError()))
    with pytest.raises(UserError, match=f"^{path} "):
        list(archive_members(path))


def test_errors_of_the_caller_are_no_damage(tmp_path):
    with pytest.raises(UserError, match="^my own$"):
        for _ in archive_members(zipped(tmp_path / "a.zip", {"a.txt": b"x"})):
            raise UserError("my own")


def test_a_name_that_is_not_utf_8_is_shown_escaped(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("caf\udce9.jpg"))
    assert [name for name, _ in archive_members(tmp_path / "a.tar")] == [r"caf\xe9.jpg"]


@pytest.mark.parametrize(
    ("password", "named"),
    [
        (None, "encrypted"),
        (("PASSWORD", None), "encrypted; .*PASSWORD"),
        (("PASSWORD", ""), "encrypted; .*PASSWORD"),
        (("PASSWORD", "wrong"), "PASSWORD doesn't open 'a.txt'"),
    ],
)
def test_an_archive_with_a_password_needs_it(tmp_path, password, named):
    path = encrypted(tmp_path / "o.zip", {"a.txt": b"secret"}, "open sesame")
    assert read_all(path, password=("PASSWORD", "open sesame")) == [b"secret"]
    with pytest.raises(UserError, match=f"^{path}.*{named}"):
        read_all(path, password=password)


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (RuntimeError("Bad password for file"), True),
        (zlib.error("invalid block type"), True),
        (zipfile.BadZipFile("Bad CRC-32"), True),
        (RuntimeError("something else"), False),
        (NotImplementedError("method 99"), False),
    ],
    ids=str,
)
def test_a_wrong_password_is_told_from_damage(tmp_path, monkeypatch, error, wrong):
    """One in 256 wrong passwords passes the zip's own check, and what is then read is nonsense."""
    path = encrypted(tmp_path / "o.zip", {"a.txt": b"secret"}, "open sesame")
    monkeypatch.setattr("zipfile.ZipFile.open", raising(error))
    with pytest.raises(UserError, match=f"^{path}") as raised:
        read_all(path, password=("PASSWORD", "other"))
    assert ("PASSWORD" in str(raised.value)) == wrong


@pytest.mark.attack("memory")
@pytest.mark.parametrize(
    "size", [2 << 30, 12 << 20, 10], ids=["far more", "more than it has", "less than it has"]
)
@pytest.mark.parametrize("program", ["unzip", "Python"])
def test_an_encrypted_zip_takes_no_more_memory_than_the_limit(
    tmp_path, monkeypatch, peak, program, size
):
    if program == "Python":
        monkeypatch.setattr(unzip, "_program", lambda: None)
    elif unzip._program() is None:
        pytest.skip("Info-ZIP's unzip is not installed")
    path = encrypted(tmp_path / "o.zip", {"a.png": bytes(20_000), "b.png": b"other"}, "open sesame")
    with zipfile.ZipFile(path, "a") as archive:
        archive.infolist()[0].file_size = size
        archive._didModify = True
    monkeypatch.setenv("OBJECTNET_PASSWORD", "open sesame")
    monkeypatch.setenv(PHOTO_MEGABYTES, "16")
    members = unzip.decrypted_members(path, lambda name: True, "OBJECTNET_PASSWORD")
    with contextlib.suppress(UserError):  # damage, which ends the job
        with contextlib.suppress(TooLargeError):
            assert len(next(members)[1]()) <= 20_000
        assert next(members)[1]() == b"other"
    members.close()
    assert peak() < 20 << 20


def test_a_file_above_the_limit_in_an_encrypted_zip_is_refused_and_the_next_one_read(
    tmp_path, monkeypatch
):
    files = {"a.png": b"one", "b.png": bytes(10**6 + 1), "c.png": b"three"}
    path = encrypted(tmp_path / "o.zip", files, "open sesame")
    monkeypatch.setenv("OBJECTNET_PASSWORD", "open sesame")
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    for name, read in unzip.decrypted_members(path, lambda name: True, "OBJECTNET_PASSWORD"):
        if name == "b.png":
            with pytest.raises(TooLargeError, match="'b.png' of more than"):
                read()
        else:
            assert read() == files[name]
