"""Locks on files: one at a time, and one sentence where a file system has none."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from filelock import Timeout

from rib.base.errors import UserError
from rib.base.locks import acquire, locked
from rib.jobs.job import job


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_locks(monkeypatch):
    """A file system without locks."""

    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_is_held_by_one_and_free_again_after_an_error():
    with pytest.raises(ValueError), locked(Path("a.lock")):
        with pytest.raises(Timeout):
            acquire(Path("a.lock"), timeout=0)
        raise ValueError
    acquire(Path("a.lock"), timeout=0).release()


def folder_in_its_place(path):
    path.mkdir()


def dangling_link_in_its_place(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("plant", [folder_in_its_place, dangling_link_in_its_place])
def test_what_is_no_file_is_named_and_a_link_is_not_followed(plant):
    path = Path("a.lock")
    plant(path)
    with pytest.raises(UserError, match=r"^a\.lock .*remove it"):
        acquire(path)
    assert not Path("nowhere").exists()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_lock_is_refused_in_a_sentence_that_names_the_file():
    with pytest.raises(UserError, match=r"^a\.lock: .*no file locks"):
        acquire(Path("a.lock"))


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_job_says_so_and_makes_nothing(capfd):
    with (
        pytest.raises(SystemExit),
        job(
            rule="r", name="n", cfg={}, inputs={}, outputs={"data": "out.x"}, log_file="n.log"
        ) as out,
    ):
        out["data"].write_text("made")
    assert "no file locks" in capfd.readouterr().err and not Path("out.x").exists()
