"""Locks on files: one at a time, and one sentence where a file system has none."""

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest
from filelock import Timeout

from rib.base.errors import UserError
from rib.base.locks import WITHOUT_LOCKS, acquire, locked
from rib.config import model_names
from rib.jobs import gpu_lock
from rib.jobs.job import job


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=sorted(WITHOUT_LOCKS), ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    """A file system without locks."""

    def flock(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_is_held_by_one_and_free_again_after_an_error():
    with pytest.raises(ValueError), locked(Path("a.lock")):
        with pytest.raises(Timeout):
            acquire(Path("a.lock"), timeout=0)
        raise ValueError
    acquire(Path("a.lock"), timeout=0).release()


def folder_in_its_place(path):
    path.mkdir()


def link_in_its_place(path):
    Path("elsewhere").touch()
    path.symlink_to("elsewhere")


def dangling_link_in_its_place(path):
    path.symlink_to("nowhere")


def socket_in_its_place(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "plant",
    [folder_in_its_place, link_in_its_place, dangling_link_in_its_place, socket_in_its_place],
    ids=lambda plant: plant.__name__,
)
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


@pytest.mark.usefixtures("without_locks")
def test_without_locks_no_gpu_is_taken(folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="rib-gpu-locks.*no file locks"):
        gpu_lock.lock_gpu()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_no_name_of_a_model_is_resolved():
    with pytest.raises(UserError, match="no file locks"):
        model_names.resolve(["timm/resnet18"])
    assert not model_names.LOCK.exists()
