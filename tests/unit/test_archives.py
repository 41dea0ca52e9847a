"""Archives are read in order, within limits, and what is wrong with one is told."""

import gzip
import io
import random
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.data import archives, unzip
from rib.data.archives import TooLargeError, archive_members
from rib.data.variables import ARCHIVE_RATIO, PHOTO_MEGABYTES
from tiny.data.photos import encrypted, tar, zipped
from tiny.tiers import examples, first

FILES = {"a/one.txt": b"one", "a/two.txt": b"two" * 1000, "three.txt": b""}


@pytest.fixture(params=["zip", "tar", "tgz", "zip in memory", "tar in memory"])
def archive(request, tmp_path):
    """Arguments of `archive_members` for an archive with `FILES` and a folder."""
    kind, _, in_memory = request.param.partition(" ")
    if kind == "zip":
        path = zipped(tmp_path / "archive", FILES)
        with zipfile.ZipFile(path, "a") as archive_file:
            archive_file.mkdir("b")
    else:
        path = tar(tmp_path / "archive", FILES)
        with tarfile.open(path, "a") as archive_file:
            folder = tarfile.TarInfo("b")
            folder.type = tarfile.DIRTYPE
            archive_file.addfile(folder)
    if kind == "tgz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if in_memory:
        data = path.read_bytes()
        path.unlink()
        return {"path": Path("outer.zip/archive"), "file": io.BytesIO(data)}
    return {"path": path}


def read_files(path, **arguments):
    """Names and bytes of the members that `archive_members` gives, in order."""
    return [(name, read()) for name, read in archive_members(path, **arguments)]


def read_contents(path, **arguments):
    """Bytes of the members that `archive_members` gives, in order."""
    return [content for _, content in read_files(path, **arguments)]


def list_names(path, **arguments):
    """Names of the members that `archive_members` gives, in order; none of them is read."""
    return [name for name, _ in archive_members(path, **arguments)]


def raising(error):
    """A function that raises an error, whatever it is called with."""

    def fail(*_, **__):
        raise error

    return fail


def test_members_are_files_in_their_order_with_their_bytes(archive):
    assert read_files(**archive) == list(FILES.items())


def test_only_wanted_members_are_given(archive):
    # given
    wanted_names = ["three.txt", "a/one.txt", "nothing"]

    def is_wanted(name):
        return name in ("three.txt", "a/one.txt")

    for wanted in (wanted_names, is_wanted):
        # when
        names = list_names(**archive, wanted=wanted)
        # then
        assert names == ["a/one.txt", "three.txt"]
        if "file" in archive:
            archive["file"].seek(0)
    assert list_names(**archive, wanted=[]) == []


@pytest.mark.parametrize("name", ["/etc/evil", "a/../../evil"])
@pytest.mark.parametrize("write_archive", [tar, zipped])
def test_members_that_point_outside_are_refused(tmp_path, write_archive, name):
    path = write_archive(tmp_path / "a", {name: b""})
    with pytest.raises(UserError, match=f"{path} .*{name}"):
        list_names(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_that_is_wanted_is_refused_and_another_passed_over(tmp_path, kind):
    # given
    path = tmp_path / "a.tar"
    link = tarfile.TarInfo("link")
    link.type = kind
    link.linkname = "file"
    with tarfile.open(path, "w") as archive:
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("file"))
    # then
    assert list_names(path, wanted=["file"]) == ["file"]
    with pytest.raises(UserError, match="a.tar .*'link'"):
        list_names(path)


@pytest.mark.parametrize("write_archive", [tar, zipped])
def test_a_member_above_the_limit_is_refused_when_it_is_read(tmp_path, monkeypatch, write_archive):
    # given
    size = 10**6 + 1
    path = write_archive(tmp_path / "a", {"large": bytes(size), "small": b"1"})
    assert read_contents(path, largest=size) == [bytes(size), b"1"]
    # when
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    # then
    names = []
    message = r"^/.*/a contains 'large' of more than 1\.00MB; .*photo_megabytes"
    for name, read in archive_members(path):
        names.append(name)
        if name == "large":
            with pytest.raises(TooLargeError, match=message):
                read()
        else:
            assert read() == b"1"
    assert names == ["large", "small"]


BOMB = 100 << 20  # bytes


def lying(path, size, kind):
    """A zip of which a member of zeros states another size, and the checksum of that many zeros."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.jpg", bytes(BOMB))
        (info,) = archive.infolist()
        info.file_size = size
        info.CRC = zlib.crc32(bytes(min(size, BOMB)))
    return path


# Fields of a tar's header, by their bytes.
HEADER = slice(512)
SIZE = slice(124, 136)
CHECKSUM = slice(148, 156)
TYPE = slice(156, 157)
MAGIC = slice(257, 265)
FIRST_HOLE = slice(386, 410)  # of a sparse file
WHOLE_SIZE = slice(483, 495)  # of a sparse file, with its holes


def octal(number):
    """A number as a tar's header has it."""
    return b"%011o\0" % number


def set_checksum(header):
    """Make the checksum of a tar's header right."""
    header[CHECKSUM] = b" " * 8
    header[CHECKSUM] = b"%06o\0 " % sum(header[HEADER])


def lying_tar(path, size):
    """A tar of which a header states more bytes than follow."""
    data = bytearray(tar(path, {"a.jpg": b"x"}).read_bytes())
    data[SIZE] = octal(size)
    set_checksum(data)
    path.write_bytes(data)
    return path


def add_zeros(archive, name, size, kind):
    """Add a member of a kind to a tar, whose body are zeros."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.type = kind
    archive.addfile(info, io.BytesIO(bytes(size)))


def with_header(path, kind):
    """A compressed tar with an extended header of many bytes before its only file."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        add_zeros(archive, "long", BOMB, kind)
        add_zeros(archive, "a.jpg", 1, tarfile.REGTYPE)
    return path


def sparse(path):
    """A tar of a file that is one hole."""
    data = bytearray(lying_tar(path, 0).read_bytes())
    data[TYPE] = tarfile.GNUTYPE_SPARSE
    data[MAGIC] = tarfile.GNU_MAGIC
    data[FIRST_HOLE] = octal(BOMB) + octal(0)
    data[WHOLE_SIZE] = octal(BOMB)
    set_checksum(data)
    path.write_bytes(data)
    return path


def with_map(path):
    """A compressed tar of a sparse file with a map of millions of parts (GNU's format 1.0)."""
    number_of_parts = 2_000_000
    empty_part = b"0\n0\n"
    body = b"%d\n" % number_of_parts + empty_part * number_of_parts
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
            attribute = b" %d=" % number + b"x" * 1_000_000 + b"\n"
            digits_of_length = 7
            length = len(attribute) + digits_of_length
            record = str(length).encode() + attribute
            info = tarfile.TarInfo("global")
            info.size = len(record)
            info.type = tarfile.XGLTYPE
            archive.addfile(info, io.BytesIO(record))
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    return path


# By name, a function that writes an archive to a path and gives the path.
BOMBS = {
    "a deflated zip": lambda path: lying(path, BOMB, zipfile.ZIP_DEFLATED),
    "a zip with LZMA": lambda path: lying(path, BOMB, zipfile.ZIP_LZMA),
    "a zip that states 10 bytes": lambda path: lying(path, 10, zipfile.ZIP_DEFLATED),
    "a zip with bzip2 that states 10 bytes": lambda path: lying(path, 10, zipfile.ZIP_BZIP2),
    "a zip that states more than it has": lambda path: lying(path, 2 * BOMB, zipfile.ZIP_DEFLATED),
    "a tar": lambda path: tar(path, {"a.jpg": bytes(BOMB)}),
    "a tgz": lambda path: tar(path, {"a.jpg": bytes(BOMB)}, "w:gz"),
    "a tar with xz": lambda path: tar(path, {"a.jpg": bytes(BOMB)}, "w:xz"),
    "a tar that states more than it has": lambda path: lying_tar(path, BOMB),
    "a tar that states gigabytes": lambda path: lying_tar(path, (8 << 30) - 1),
    "a hole in a tar": sparse,
    "a long name in a tar": lambda path: with_header(path, tarfile.GNUTYPE_LONGNAME),
    "attributes in a tar": lambda path: with_header(path, tarfile.XHDTYPE),
    "many global attributes in a tar": with_globals,
    "a map of holes in a tar": with_map,
}


@pytest.mark.parametrize(
    "write_bomb",
    examples(
        BOMBS, {"a deflated zip", "a tgz", "a tar that states gigabytes", "a long name in a tar"}
    ),
)
def test_reading_takes_no_more_memory_than_the_limit_whatever_an_archive_states(
    tmp_path, monkeypatch, peak, write_bomb
):
    """Most archives are refused; of that which states 10 bytes, 10 may be read."""
    # given
    path = write_bomb(tmp_path / "a.archive")
    peak()  # what follows is measured
    monkeypatch.setenv(PHOTO_MEGABYTES, "8")
    # when
    try:
        contents = read_contents(path)
        message = None
    except UserError as error:
        message = str(error)
    # then
    if message is None:
        assert contents == [bytes(10)]
    else:
        assert message.startswith(f"{path} ")
    assert peak() < 20 << 20


ZEROS = 80 << 20  # bytes, of which no archive may unpack as many for nothing
COMPRESSIONS = ["gz", "bz2", "xz"]


@pytest.mark.parametrize("kind", first(COMPRESSIONS))
@pytest.mark.parametrize("members", [1, 10], ids=["a large one", "several"])
def test_skipped_files_of_a_compressed_tar_count(tmp_path, monkeypatch, kind, members):
    # given
    skipped_files = {f"{number}.bin": bytes(ZEROS // members) for number in range(members)}
    files = {**skipped_files, "last.jpg": b"x"}
    path = tar(tmp_path / "a.tar", files, f"w:{kind}")
    # then the usual limit is exceeded
    monkeypatch.setenv(ARCHIVE_RATIO, "100")
    with pytest.raises(UserError, match=f"^{path} of .* more than 67.*limits.archive_ratio"):
        list_names(path, wanted=["last.jpg"])
    # and a higher one is not
    monkeypatch.setenv(ARCHIVE_RATIO, "1000000")
    assert read_contents(path, wanted=["last.jpg"]) == [b"x"]


def test_files_of_a_zip_count_by_the_sizes_that_they_state_if_they_are_wanted(tmp_path):
    # given
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.jpg", bytes(ZEROS // 4))
    # then all are too many
    with pytest.raises(UserError, match=f"^{path} .*limits.archive_ratio"):
        list_names(path)
    # and two are not
    wanted = ["0.jpg", "3.jpg"]
    assert list_names(path, wanted=wanted) == wanted


@pytest.mark.parametrize("kind", first(COMPRESSIONS))
@pytest.mark.parametrize("size", [250 << 10, (250 << 10) + 1])
@pytest.mark.parametrize("read", [True, False])
def test_each_byte_of_a_compressed_tar_is_unpacked_once(tmp_path, monkeypatch, kind, size, read):
    # given
    noise = random.Random(0).randbytes(size)  # which no compression makes smaller
    files = {f"{number}.jpg": noise[number:] for number in range(4)}
    path = tar(tmp_path / "a.tar", files, f"w:{kind}")
    # when no more may be unpacked than the files with their headers, and the end of the tar
    header_and_filling = 2048
    end = 10240
    monkeypatch.setattr(archives, "FREE", len(files) * (size + header_and_filling) + end)
    monkeypatch.setenv(ARCHIVE_RATIO, "0")
    # then all members are given
    names = []
    for name, read_member in archive_members(path):
        names.append(name)
        if read:
            assert read_member() == files[name]
    assert names == list(files)


def test_an_archive_of_texts_is_within_the_limit(tmp_path, monkeypatch):
    """A table that unpacks to 20 bytes per byte."""
    # given
    digits = random.Random(0)
    lines = [
        f"n01440764/image_{number:07},0,0,500,375,{digits.choice('0123456789')}\n"
        for number in range(30_000)
    ]
    table = "".join(lines).encode()
    path = tar(tmp_path / "a.tar", {"table.csv": table}, "w:xz")
    assert len(table) > 20 * path.stat().st_size
    # when
    monkeypatch.setattr(archives, "FREE", 0)
    # then
    assert read_contents(path) == [table]


def test_a_tar_that_ends_in_a_zip_is_read_as_a_tar(tmp_path):
    inner_zip = zipped(tmp_path / "inner.zip", {"evil.png": b"x"}).read_bytes()
    path = tar(tmp_path / "a.tar", {"good.png": b"1", "extra.zip": inner_zip})
    assert list_names(path) == ["good.png", "extra.zip"]


def test_a_member_of_negative_size_is_refused_where_it_would_be_read_for_ever(tmp_path):
    # given
    path = tar(tmp_path / "a.tar", {"one": bytes(512), "other": bytes(512)})
    data = bytearray(path.read_bytes())
    header_of_other = slice(1024, 1536)
    header = data[header_of_other]  # what follows it would be itself
    header[SIZE] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    set_checksum(header)
    data[header_of_other] = header
    path.write_bytes(data)
    # then
    with pytest.raises(UserError, match="a.tar .*'other'"):
        list_names(path)


def truncated(folder):
    """A compressed tar that lacks its end."""
    path = tar(folder / "a.tgz", {"member": bytes(range(256)) * 400}, "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def edited(old, new):
    """A function that writes a zip with a text, of which some bytes are replaced, into a folder."""

    def write_edited_zip(folder):
        path = zipped(folder / "a.zip", {"a.txt": b"0123456789"})
        path.write_bytes(path.read_bytes().replace(old, new))
        return path

    return write_edited_zip


COMPRESSION_0 = b"\x14\x00\x00\x00\x00\x00"  # with what stands before it in a zip
COMPRESSION_9 = b"\x14\x00\x00\x00\x09\x00"


@pytest.mark.parametrize(
    ("write_archive", "why"),
    [
        (truncated, "damaged"),
        (edited(b"0123456789", b"0123456780"), "damaged"),
        (edited(COMPRESSION_0, COMPRESSION_9), "format"),
        (lambda folder: folder / "nothing.zip", "read"),
    ],
    ids=[
        "truncated",
        "other bytes than its checksum's",
        "a compression that Python lacks",
        "missing",
    ],
)
def test_an_archive_that_cannot_be_read_is_named(tmp_path, write_archive, why):
    path = write_archive(tmp_path)
    with pytest.raises(UserError, match=f"^{path} .*{why}"):
        read_contents(path)


@pytest.mark.parametrize(
    ("write_archive", "reading"),
    [(zipped, "zipfile.ZipFile.open"), (tar, "tarfile.TarFile.extractfile")],
)
def test_any_error_of_reading_bytes_names_the_archive_and_only_too_little_memory_is_passed_on(
    tmp_path, monkeypatch, write_archive, reading
):
    path = write_archive(tmp_path / "a", {"a.txt": b"0123456789"})
    monkeypatch.setattr(reading, raising(IndexError()))
    with pytest.raises(UserError, match=f"^{path} "):
        read_contents(path)
    monkeypatch.setattr(reading, raising(MemoryError()))
    with pytest.raises(MemoryError):
        read_contents(path)


def test_errors_of_the_caller_are_no_damage(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.txt": b"x"})
    with pytest.raises(UserError, match="^my own$"):
        for _ in archive_members(path):
            raise UserError("my own")


def test_a_name_that_is_not_utf_8_is_shown_escaped(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("caf\udce9.jpg"))
    assert list_names(path) == [r"caf\xe9.jpg"]


PASSWORD = "open sesame"


def test_an_encrypted_zip_is_refused_where_the_layout_has_no_password(tmp_path):
    path = encrypted(tmp_path / "o.zip", {"a.txt": b"secret"}, PASSWORD)
    with pytest.raises(UserError, match=f"^{path} is encrypted"):
        read_contents(path)


def set_stated_size(path, size):
    """State another size of the first file of a zip."""
    with zipfile.ZipFile(path, "a") as archive:
        first_file, *_ = archive.infolist()
        first_file.file_size = size
        archive._didModify = True


@pytest.mark.parametrize(
    "size", [2 << 30, 12 << 20, 10], ids=["far more", "more than it has", "less than it has"]
)
@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs Info-ZIP's unzip")
def test_an_encrypted_zip_takes_no_more_memory_than_the_limit(tmp_path, monkeypatch, peak, size):
    # given
    path = encrypted(tmp_path / "o.zip", {"a.png": bytes(20_000), "b.png": b"other"}, PASSWORD)
    set_stated_size(path, size)
    monkeypatch.setenv("OBJECTNET_PASSWORD", PASSWORD)
    monkeypatch.setenv(PHOTO_MEGABYTES, "16")
    # when
    members = unzip.decrypted_members(path, lambda name: True, "OBJECTNET_PASSWORD")
    names = []
    try:
        for name, read in members:
            names.append(name)
            try:
                content = read()
            except TooLargeError:
                continue
            # then
            if name == "a.png":
                assert len(content) <= 20_000
            else:
                assert content == b"other"
    except UserError as error:  # damage, which ends the job
        assert str(path) in str(error)
    members.close()
    assert names in (["a.png"], ["a.png", "b.png"])
    assert peak() < 20 << 20


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs Info-ZIP's unzip")
def test_a_file_above_the_limit_in_an_encrypted_zip_is_refused_and_the_next_one_read(
    tmp_path, monkeypatch
):
    # given
    files = {"a.png": b"one", "b.png": bytes(10**6 + 1), "c.png": b"three"}
    path = encrypted(tmp_path / "o.zip", files, PASSWORD)
    monkeypatch.setenv("OBJECTNET_PASSWORD", PASSWORD)
    monkeypatch.setenv(PHOTO_MEGABYTES, "1")
    # when
    names = []
    for name, read in unzip.decrypted_members(path, lambda name: True, "OBJECTNET_PASSWORD"):
        names.append(name)
        # then
        if name == "b.png":
            with pytest.raises(TooLargeError, match="'b.png' of more than"):
                read()
        else:
            assert read() == files[name]
    assert names == list(files)
