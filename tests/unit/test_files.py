import base64
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from rib.base.errors import UserError
from rib.base.files import (
    from_home,
    read_json,
    refuse_full_disk,
    refuse_unwritable,
    sha256,
    verify_digest,
    write_json,
    write_table,
    write_text,
)
from rib.base.progress import Progress


def test_both_published_forms_of_a_digest_are_checked(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    assert sha256(path) == hashlib.sha256(b"bytes").hexdigest()
    pins = (
        "sha512-" + base64.b64encode(hashlib.sha512(b"bytes").digest()).decode(),
        "sha256:" + hashlib.sha256(b"bytes").hexdigest(),
    )
    for pinned in pins:
        verify_digest(path, pinned, "set")
    path.write_bytes(b"byte")
    for pinned in pins:
        with pytest.raises(UserError, match="set: file .4 bytes"):
            verify_digest(path, pinned, "set")


def test_a_tilde_is_the_home_folder_and_an_unknown_users_is_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert from_home("~/data", "config") == Path("/home/me/data") and from_home(
        "/a/~b", "config"
    ) == Path("/a/~b")
    with pytest.raises(UserError, match="^config: .*~no-such-user/data"):
        from_home("~no-such-user/data", "config")


def test_a_path_is_refused_where_it_or_the_folder_to_make_it_in_is_not_writable(
    tmp_path, monkeypatch
):
    # given a closed folder; root may write everywhere
    monkeypatch.chdir(tmp_path)
    closed = tmp_path / "results"
    closed.mkdir()

    def access(path, mode):
        return path.exists() if mode == os.F_OK else path != closed

    monkeypatch.setattr(os, "access", access)
    # then
    refuse_unwritable(".", "reports/emoji", "logs")
    for path in ("results", "results/emoji", "results/emoji/prepare"):
        with pytest.raises(UserError, match=str(closed)):
            refuse_unwritable(path)


def test_text_is_written_as_it_is_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("a much longer text than the new one")
    write_text(path, "ü\nb\r\n")
    assert path.read_bytes() == "ü\nb\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_stays_as_it_was_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "before")
    monkeypatch.setattr("os.replace", lambda *_: pytest.fail("renamed"))
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "before"


def test_json_is_sorted_and_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"b": 1, "a": 2})
    assert path.read_text() == '{\n "a": 2,\n "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_json_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"ü": [1, None]})
    assert read_json(path) == {"ü": [1, None]}
    for damage in (b'{"a": ', b"\xff"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=f"^{path} "):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json")


def test_tables_are_written_without_index_and_with_the_digits_asked_for(tmp_path):
    table = pd.DataFrame({"a": [1 / 3, float("nan")], "b": [1, 2], "c": ["x", "y,z"]}, index=[7, 8])
    write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b'a,b,c\n0.333333,1,x\n,2,"y,z"\n'
    write_table(tmp_path / "t.csv", table, "%.2f")
    assert (tmp_path / "t.csv").read_bytes().startswith(b"a,b,c\n0.33,1,x\n")


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr(
        "shutil.disk_usage", lambda folder: SimpleNamespace(free=2000 if folder == tmp_path else 0)
    )
    for needed in (0, 2000):
        refuse_full_disk(tmp_path, needed, "prepare of a")
    assert "prepare of a" in caplog.text and caplog.text.count("2.00kB") == 3
    with pytest.raises(UserError, match="^prepare of a"):
        refuse_full_disk(tmp_path, 2001, "prepare of a")


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


def test_what_an_earlier_process_has_done_counts_in_no_rate():
    # given 600 of 800 images that were trained on before this process was started
    bar = Progress(desc="resumed", total=800, unit="image", done_before=600)
    # when 20 more take 10 seconds
    bar.start_t = bar._time() - 10
    bar.update(20)
    facts = bar.format_dict
    line = bar.format_meter(**{**facts, "ncols": 0})
    bar.close()
    # then at 2 images a second the others take a minute and a half
    assert "620/800" in line
    assert "2.00image/s" in line
    assert "<01:30" in line
