import base64
import hashlib
import io
import tarfile
import zipfile

import pytest

from rib.io import UserError, archive_members, verify_digest, write_json


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
