import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import yaml

from rib.base.errors import UserError
from rib.base.files import sha256
from rib.base.progress import log
from rib.jobs.job import job, reason
from rib.jobs.messages import MEMORY_SETTING, message_of
from rib.records.environment import commit


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a job; arguments may be others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("in")
    usual = {
        "rule": "r",
        "name": "n",
        "cfg": {"a": 1},
        "inputs": {"one": "in.txt", "many": ["in.txt"]},
        "outputs": {name: f"results/{name}.x" for name in ("data", "manifest", "provenance")},
        "log_file": "logs/n.log",
    }
    return lambda **changes: job(**{**usual, **changes})


def test_outputs_are_published_with_manifest_and_provenance(start, tmp_path):
    with start() as out:
        out["data"].write_text("made")
        out["manifest"].write_text('{"n": 1}')
    made = sha256(tmp_path / "results/data.x")
    assert json.loads((tmp_path / "results/manifest.x").read_text()) == {
        "n": 1,
        "files": {"data.x": made},
    }
    record = json.loads((tmp_path / "results/provenance.x").read_text())
    assert record["inputs"] == {"in.txt": sha256(tmp_path / "in.txt")}
    manifest = sha256(tmp_path / "results/manifest.x")
    assert record["outputs"] == {"results/data.x": made, "results/manifest.x": manifest}
    assert record["rule"] == "r" and record["log"] == "logs/n.log" and record["commit"] is None
    assert record["cfg"] == {"a": 1} and record["versions"]["numpy"]
    assert record["seconds"] >= record["cpu_seconds"] * 0.5
    assert record["peak_memory"] > 10**7 and record["sizes"]["results/data.x"] == len("made")
    assert not any((tmp_path / "work").iterdir())


def test_the_manifest_gets_its_name_after_the_files_that_it_lists(start, monkeypatch):
    named, rename = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (rename(old, new), named.append(Path(new))))
    outputs = {name: f"results/{name}.x" for name in ("manifest", "provenance", "data", "more")}
    with start(outputs=outputs) as out:
        for name in ("data", "more"):
            out[name].write_text(name)
    named = [path.stem for path in named if path.parent == Path("results")]
    assert sorted(named) == sorted(outputs) and named[-1] == "manifest"


@pytest.fixture
def two_disks(monkeypatch):
    """Renaming from work/ to another folder fails, as between disks."""
    rename = os.replace

    def replace(old, new):
        if Path(old).parts[0] == "work" != Path(new).parts[0]:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(old), None, str(new))
        rename(old, new)

    monkeypatch.setattr(os, "replace", replace)


OUTPUTS = {
    "data": "results/data.x",
    "archive": "results/archive.x",
    "provenance": "results/provenance.x",
}


@pytest.mark.usefixtures("two_disks")
def test_results_may_lie_on_another_disk_than_work(start, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/.data.x.copy").write_text("of a job that was killed")
    with start(outputs=OUTPUTS) as out:
        out["data"].write_text("made")
        os.utime(out["data"], (1e9, 1e9))
        out["archive"].symlink_to(tmp_path / "in.txt")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "archive.x",
        "data.x",
        "provenance.x",
    ]
    assert (tmp_path / "results/data.x").read_text() == "made"
    assert (tmp_path / "results/data.x").stat().st_mtime == 1e9
    assert (tmp_path / "results/archive.x").readlink() == tmp_path / "in.txt", (
        "the user's archive is not copied"
    )


@pytest.mark.usefixtures("two_disks")
def test_where_the_other_disk_is_full_nothing_is_half_written(start, tmp_path, monkeypatch, capfd):
    copy = shutil.copy2

    def copy_until_full(source, target, **options):
        if source.name == "archive.x":
            target.write_text("a pa")
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, "copy2", copy_until_full)
    with pytest.raises(SystemExit), start(outputs=OUTPUTS) as out:
        out["data"].write_text("made")
        out["archive"].write_text("a part and another")
    assert list((tmp_path / "results").iterdir()) == []
    printed = capfd.readouterr().err
    assert "results/.archive.x.copy: no space is left" in printed, "the disk that is full is named"


@pytest.mark.parametrize(
    ("outputs", "printed"), [({"data": "x"}, ["warning"]), ({}, ["line", "warning", "done"])]
)
def test_a_job_with_outputs_prints_only_what_went_wrong_and_its_log_has_all(
    start, tmp_path, capfd, outputs, printed
):
    with start(outputs=outputs) as out:
        log.info("a line")
        log.warning("a warning")
        for path in dict(out.items()).values():
            path.touch()
    lines = capfd.readouterr().err.splitlines()
    assert all(word in line for word, line in zip(printed, lines, strict=True))
    kept = (tmp_path / "logs/n.log").read_text().splitlines()
    assert all(word in line for word, line in zip(["line", "warning", "done"], kept, strict=True))


def test_a_job_cleans_up_undisturbed_by_more_signals(start, tmp_path):
    if (pid := os.fork()) == 0:
        try:
            with start() as out:
                out["data"].write_text("half")
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    os.kill(os.getpid(), signal.SIGINT)
                    os.kill(os.getpid(), signal.SIGTERM)
                    (tmp_path / "cleaned").touch()
        except SystemExit as end:
            os._exit(end.code)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM
    assert (tmp_path / "cleaned").exists() and not any((tmp_path / "work").iterdir())


def test_why_a_job_failed_is_read_from_its_log(start, tmp_path):
    log_file = tmp_path / "logs/n.log"
    assert reason(log_file) is None
    with pytest.raises(SystemExit), start():
        raise UserError("the disk is a teapot.")
    assert reason(log_file) == "the disk is a teapot."
    with start() as out:
        out["data"].write_text("made")
    assert reason(log_file) is None


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (UserError("the disk is a teapot."), "the disk is a teapot."),
        (OSError(errno.ENOSPC, "", "a.npy"), "a.npy: "),
        (OSError(errno.ELOOP, "", "a.npy"), "a.npy: the link"),
        (OSError(errno.EFBIG, "", "a.npy"), "a.npy: the file is larger"),
        (OSError(errno.EDQUOT, "", "a.npy"), "a.npy: your quota"),
        (MemoryError(), "--cores"),
        (OutOfMemoryError(), "compute.evaluation_batch_size"),
        (KeyError("k"), "KeyError: 'k' "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failed_job_says_why_and_leaves_nothing(start, tmp_path, capfd, error, reported):
    with pytest.raises(SystemExit), start() as out:
        out["data"].write_text("half")
        raise error
    printed, kept = capfd.readouterr().err, (tmp_path / "logs/n.log").read_text()
    assert printed.startswith("r n: ") and reported in printed and reported in kept
    assert ("Traceback" in kept) != isinstance(error, UserError | OSError)
    assert not (tmp_path / "results").exists() and not any((tmp_path / "work").iterdir())


def write_text(path):
    path.write_text("a" * 100_000)


def write_parquet(path):
    pq.write_table(pa.table({"a": [str(number) for number in range(50_000)]}), path)


def write_safetensors(path):
    safetensors.numpy.save_file({"a": np.zeros(50_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_parquet, write_safetensors])
def test_a_file_larger_than_a_limit_is_a_sentence(start, tmp_path, capfd, limited_files, write):
    """With `ulimit -f`, a job says so in one line, whichever library writes.

    It leaves nothing.
    """
    with pytest.raises(SystemExit), start() as out, limited_files(20_000):
        write(out["data"])
    (line,) = capfd.readouterr().err.splitlines()
    assert "the file is larger" in line and "ulimit -f" in line
    assert "Traceback" not in (tmp_path / "logs/n.log").read_text()
    assert not (tmp_path / "results").exists() and not any((tmp_path / "work").iterdir())


FAILING_SCRIPT = """
import _run
from rib.base.errors import UserError

raise {error}("results/a.csv is missing; run again.") from OSError("no such file")
"""


@pytest.mark.parametrize("error", ["UserError", "ValueError"])
def test_a_script_that_fails_outside_of_its_job_shows_a_users_error_as_a_sentence(
    tmp_path, pytestconfig, error
):
    script = tmp_path / "script.py"
    script.write_text(FAILING_SCRIPT.format(error=error))
    scripts = pytestconfig.rootpath / "workflow/scripts"
    process = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1 and process.stdout == ""
    if error == "UserError":
        assert process.stderr == "results/a.csv is missing; run again.\n"
    else:
        assert "Traceback" in process.stderr


def test_where_a_gpu_is_too_small_a_setting_that_there_is_is_named(pytestconfig):
    config = yaml.safe_load((pytestconfig.rootpath / "config.yaml").read_text())
    for rule in (*MEMORY_SETTING, "evaluate_run"):
        assert any(
            f" {rule}" in path.read_text()
            for path in (pytestconfig.rootpath / "workflow/rules").rglob("*.smk")
        )
        named = re.search(r"(\w+)\.(\w+) in config", message_of(OutOfMemoryError(), rule, "log"))
        assert named[2] in config[named[1]]
    assert "training.micro_batch_size" in message_of(OutOfMemoryError(), "finetune", "log")


def test_a_forgotten_output_is_an_error(start, tmp_path, capfd):
    with pytest.raises(SystemExit), start():
        pass
    assert "'data'" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()


def test_what_a_killed_job_left_is_swept_away(start, tmp_path):
    if (pid := os.fork()) == 0:
        with start() as out:
            out["data"].write_text("half")
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert any((tmp_path / "work").iterdir()) and not (tmp_path / "results").exists()
    with start() as out:
        out["data"].write_text("whole")
    assert (tmp_path / "results/data.x").read_text() == "whole" and not any(
        (tmp_path / "work").iterdir()
    )


@pytest.mark.parametrize("stopped", [UserError("no."), KeyboardInterrupt()])
def test_a_job_that_resumes_keeps_what_it_had_until_it_is_done_or_is_another(
    start, tmp_path, stopped
):
    outputs = {"data": "data.x"}
    with (
        pytest.raises((SystemExit, KeyboardInterrupt)),
        start(outputs=outputs, resumes="data.x") as out,
    ):
        out["data"].write_text("half")
        raise stopped
    with (
        pytest.raises((SystemExit, KeyboardInterrupt)),
        start(outputs=outputs, resumes="data.x") as out,
    ):
        assert out["data"].read_text() == "half"
        raise stopped
    with start(cfg={"a": 2}, outputs=outputs, resumes="data.x") as out:
        assert not out["data"].exists(), "of other settings"
        out["data"].write_text("whole")
    assert (tmp_path / "data.x").read_text() == "whole" and not any((tmp_path / "work").iterdir())


def test_settings_that_json_would_change_are_refused(start, capfd):
    with pytest.raises(SystemExit), start(cfg={"a": (1, 2)}):
        pytest.fail("started")
    assert "rule r" in capfd.readouterr().err


def test_the_commit_is_the_projects_and_says_when_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.run(
            ["git", *who, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    assert commit() is None


def test_a_move_that_is_not_permitted_names_both_of_its_ends():
    error = PermissionError(
        errno.EACCES, "Permission denied", "work/new.safetensors", None, "results/old.safetensors"
    )
    message = message_of(error, "convert_model", "log")
    assert "work/new.safetensors" in message and "results/old.safetensors" in message
    assert "change its permissions" in message
