import base64
import hashlib
import io
import tarfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from rib.io import (
    Progress,
    UserError,
    archive_members,
    file_hash,
    from_home,
    in_bytes,
    is_file,
    is_folder,
    read_json,
    refuse_full_disk,
    sha256,
    verify_digest,
    write_json,
    write_table,
    write_text,
)
from tiny.photos import encrypted


def test_both_published_forms_of_a_digest_are_checked(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(b"bytes").digest()).decode()
    verify_digest(path, integrity, "set")
    verify_digest(path, "sha256:" + hashlib.sha256(b"bytes").hexdigest(), "set")
    path.write_bytes(b"byte")
    for pinned in (integrity, "sha256:" + hashlib.sha256(b"bytes").hexdigest()):
        with pytest.raises(UserError, match=r"set: file \(4 bytes\) has sha.*pins.*truncated"):
            verify_digest(path, pinned, "set")


def tar_with(path, name):
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = 100_000
        archive.addfile(info, io.BytesIO(hashlib.sha512(b"x").digest() * 1563))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_members_that_point_outside_are_refused(tmp_path, name):
    tar_with(tmp_path / "a.tgz", name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"")
    for path in (tmp_path / "a.tgz", tmp_path / "a.zip"):
        with pytest.raises(UserError, match="points outside"):
            list(archive_members(path))


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "a.tgz"
    tar_with(path, "member")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.tgz can't be read as an archive .*delete it and run again"):
        list(archive_members(path))


def test_a_sentence_is_one_line_that_ends_and_steers_no_terminal():
    assert str(UserError("a\nb\0\x1b[31m\ud800 'ü' is wrong.")) == r"a\nb\x00\x1b[31m\ud800 'ü' is wrong."
    told = str(UserError(f"'{'x' * 9000}' is no name; correct it."))
    assert len(told) < 400 and told.startswith("'xxx") and told.endswith("x' is no name; correct it.")


def test_a_member_of_negative_size_is_refused_where_it_would_be_read_for_ever(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("one", "other"):
            info = tarfile.TarInfo(name)
            info.size = 512
            archive.addfile(info, io.BytesIO(bytes(512)))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    header = data[1024:1536]  # what follows it would be itself
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"holds the member 'other' of -512 bytes; it is damaged"):
        list(archive_members(tmp_path / "a.tar"))


def test_a_zip_packed_as_python_cannot_read_it_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x09\x00"))
    with pytest.raises(UserError, match=r"a\.zip is packed in a way that Python can't read \(.*\); pack it anew"):
        [read() for _, read in archive_members(tmp_path / "a.zip")]


def test_a_name_that_is_no_utf_8_is_shown_escaped(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("caf\udce9.jpg"))
    assert [name for name, _ in archive_members(tmp_path / "a.tar")] == [r"caf\xe9.jpg"]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"b": 1, "a": 2})
    assert path.read_text() == '{\n "a": 2,\n "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_a_digest_is_of_every_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("rib.io.CHUNK", 4)
    (tmp_path / "file").write_bytes(b"0123456789")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"0123456789").hexdigest()
    assert file_hash(tmp_path / "file", "md5") == hashlib.md5(b"0123456789").digest()


def test_names_that_no_file_can_have_are_no_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    found = {name: (is_folder(tmp_path / name), is_file(tmp_path / name)) for name in ("folder", "file", "x" * 5000)}
    assert found == {"folder": (True, False), "file": (False, True), "x" * 5000: (False, False)}


def test_a_tilde_is_the_home_folder_and_an_unknown_users_is_a_sentence(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert from_home("~/data", "config") == Path("/home/me/data") and from_home("/a/~b", "config") == Path("/a/~b")
    with pytest.raises(UserError, match=r"^config: .*~no-such-user/data"):
        from_home("~no-such-user/data", "config")


def test_only_a_word_without_end_is_shortened():
    for length, shortened in ((419, False), (420, True), (500, True)):
        told = str(UserError("x" * length + " y"))
        assert told == (f"{'x' * 300}...{'x' * 20} y" if shortened else "x" * length + " y")
    assert str(UserError("tab\tend")) == r"tab\tend"


def test_text_is_written_as_it_is_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("a much longer text than the new one")
    write_text(path, "ü\nb\r\n")
    assert path.read_bytes() == "ü\nb\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_written_before_stays_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "before")
    monkeypatch.setattr("os.replace", lambda *_: pytest.fail("renamed"))
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "before"


def test_tables_are_written_without_index_and_with_the_digits_asked_for(tmp_path):
    table = pd.DataFrame({"a": [1 / 3, float("nan")], "b": [1, 2], "c": ["x", "y,z"]}, index=[7, 8])
    write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b'a,b,c\n0.333333,1,x\n,2,"y,z"\n'
    write_table(tmp_path / "t.csv", table, "%.2f")
    assert (tmp_path / "t.csv").read_bytes().startswith(b"a,b,c\n0.33,1,x\n")


def test_json_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"ü": [1, None]})
    assert read_json(path) == {"ü": [1, None]}
    for damage in (b'{"a": ', b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"value\.json is not valid JSON .*delete it and run again"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json")


FILES = {"a/one.txt": b"one", "a/two.txt": b"two" * 1000, "three.txt": b""}


@pytest.fixture(params=["zip", "tar", "tgz", "zip in memory", "tar in memory"])
def archive(request, tmp_path):
    """Arguments of `archive_members` for an archive with `FILES` and a folder."""
    kind, _, in_memory = request.param.partition(" ")
    path = tmp_path / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as made:
            made.mkdir("a")
            for name, data in FILES.items():
                made.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as made:
            folder = tarfile.TarInfo("a")
            folder.type = tarfile.DIRTYPE
            made.addfile(folder)
            for name, data in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
    if in_memory:
        data = path.read_bytes()
        path.unlink()
        return {"path": Path("outer.zip/archive"), "file": io.BytesIO(data)}
    return {"path": path}


def test_members_are_files_in_their_order_with_their_bytes(archive):
    assert [(name, read()) for name, read in archive_members(**archive)] == list(FILES.items())


def test_only_wanted_members_are_given(archive):
    for wanted in (["three.txt", "a/one.txt", "nothing"], lambda name: name in ("three.txt", "a/one.txt")):
        assert [name for name, _ in archive_members(**archive, wanted=wanted)] == ["a/one.txt", "three.txt"]
        if "file" in archive:
            archive["file"].seek(0)
    assert list(archive_members(**archive, wanted=[])) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_that_is_wanted_is_refused_and_another_passed_over(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, "file"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("file"))
    assert [name for name, _ in archive_members(tmp_path / "a.tar", wanted=["file"])] == ["file"]
    with pytest.raises(UserError, match=r"a\.tar holds 'link' as a link to 'file'"):
        list(archive_members(tmp_path / "a.tar"))


def test_a_member_larger_than_any_image_or_model_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("large", bytes(101))
    monkeypatch.setattr("rib.io.LARGEST_MEMBER", 101)
    assert [read() for _, read in archive_members(tmp_path / "a.zip")] == [bytes(101)]
    monkeypatch.setattr("rib.io.LARGEST_MEMBER", 100)
    with pytest.raises(UserError, match=r"a\.zip holds the member 'large' of .* more than any image or model"):
        list(archive_members(tmp_path / "a.zip"))


def test_a_member_whose_bytes_are_damaged_is_refused_when_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"0123456789")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"0123456789", b"0123456780"))
    with pytest.raises(UserError, match=r"a\.zip can't be read as an archive \(Bad CRC.*damaged"):
        [read() for _, read in archive_members(tmp_path / "a.zip")]


def test_an_archive_with_a_password_needs_it(tmp_path):
    path = encrypted(tmp_path / "o.zip", {"a.txt": b"secret"}, "open sesame")
    assert [read() for _, read in archive_members(path, password=("PASSWORD", "open sesame"))] == [b"secret"]
    for password, said in (
        (None, "is encrypted; its layout knows no password"),
        (("PASSWORD", None), "is encrypted; set the environment variable PASSWORD"),
        (("PASSWORD", ""), "is encrypted; set the environment variable PASSWORD"),
        (("PASSWORD", "wrong"), r"the password in PASSWORD doesn't open 'a\.txt'"),
    ):
        with pytest.raises(UserError, match=rf"o\.zip:? {said}"):
            [read() for _, read in archive_members(path, password=password)]


def test_errors_of_who_reads_an_archive_are_no_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    with pytest.raises(UserError, match="^my own$"):
        for _ in archive_members(tmp_path / "a.zip"):
            raise UserError("my own")
    with pytest.raises(UserError, match="can't be read"):
        list(archive_members(tmp_path / "nothing.zip"))


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2000 if folder == tmp_path else 0))
    for needed in (0, 2000):
        refuse_full_disk(tmp_path, needed, "prepare of a")
    assert "prepare of a writes 2.00kB; 2.00kB are free" in caplog.text
    with pytest.raises(UserError, match=r"^prepare of a needs 2\.00kB of disk, and 2\.00kB are free"):
        refuse_full_disk(tmp_path, 2001, "prepare of a")


def test_bytes_are_told_in_powers_of_a_thousand():
    assert [in_bytes(number) for number in (0, 999, 1250, 1.25e9)] == ["0.00B", "999B", "1.25kB", "1.25GB"]


def test_progress_is_lines_of_the_log_and_short_work_has_none(caplog, capfd):
    caplog.set_level("INFO")
    assert list(Progress(range(3), desc="short", unit="file")) == [0, 1, 2]
    assert caplog.text == ""
    bar = Progress(desc="long", total=4, unit="file")
    bar.display()
    assert caplog.text == "", "nothing is done yet"
    bar.update(2)
    bar.display()
    bar.close()
    assert "long:  50%" in caplog.text and "2/4" in caplog.text and "file/s" in caplog.text
    assert capfd.readouterr() == ("", "")
    assert bar.mininterval == bar.delay == 5


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Bad password for file"), "the password in PASSWORD doesn't open 'a.txt'"),
        (zlib.error("invalid block type"), "the password in PASSWORD doesn't open 'a.txt'"),
        (zipfile.BadZipFile("Bad CRC-32"), "the password in PASSWORD doesn't open 'a.txt'"),
        (RuntimeError("something else"), "can't be read as an archive (something else)"),
        (NotImplementedError("method 99"), "is packed in a way that Python can't read (method 99)"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_password_is_told_from_damage(tmp_path, monkeypatch, error, said):
    """One in 256 wrong passwords passes the zip's own check, and what is then read is nonsense."""

    def fail(*_):
        raise error

    path = encrypted(tmp_path / "o.zip", {"a.txt": b"secret"}, "open sesame")
    monkeypatch.setattr(zipfile.ZipFile, "read", fail)
    with pytest.raises(UserError) as raised:
        [read() for _, read in archive_members(path, password=("PASSWORD", "other"))]
    assert str(raised.value).startswith(str(path)) and said in str(raised.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_cannot_be_read_names_its_archive(tmp_path, monkeypatch, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", b"0123456789")
        monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: [][0])
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("a.txt")
            info.size = 10
            archive.addfile(info, io.BytesIO(b"0123456789"))
        monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda *_: [][0])
    with pytest.raises(UserError, match=rf"^{path} can't be read as an archive"):
        [read() for _, read in archive_members(path)]


def test_want_of_memory_is_no_damage_where_bytes_are_read_and_damage_where_sizes_are(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"0123456789")
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "read", fail)
        with pytest.raises(MemoryError):
            [read() for _, read in archive_members(tmp_path / "a.zip")]
    monkeypatch.setattr(zipfile.ZipFile, "infolist", fail)
    with pytest.raises(UserError, match="can't be read as an archive"):
        list(archive_members(tmp_path / "a.zip"))
