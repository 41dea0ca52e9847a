"""Jobs publish whole outputs with their record, or say what went wrong and leave nothing."""

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

from rib.base.errors import PermanentError, UserError
from rib.base.files import sha256
from rib.base.progress import log
from rib.jobs.job import job
from rib.jobs.messages import message_of
from rib.records.environment import commit


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function that starts a job in tmp_path; arguments may be others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("in")
    usual_arguments = {
        "rule": "r",
        "name": "n",
        "cfg": {"a": 1},
        "inputs": {"one": "in.txt", "many": ["in.txt"]},
        "outputs": {
            "data": "results/data.x",
            "manifest": "results/manifest.x",
            "provenance": "results/provenance.x",
        },
        "log_file": "logs/n.log",
    }

    def start_job(**changes):
        return job(**{**usual_arguments, **changes})

    return start_job


def private_files(folder):
    """What jobs have left in their private folders, which all lie in `work`."""
    return list((folder / "work").iterdir())


def test_outputs_are_published_with_manifest_and_provenance(start, tmp_path):
    # when
    with start() as out:
        out["data"].write_text("made")
        out["manifest"].write_text('{"n": 1}')
    # then the manifest has its facts and the hash of the data
    hash_of_data = sha256(tmp_path / "results/data.x")
    manifest = json.loads((tmp_path / "results/manifest.x").read_text())
    assert manifest == {"n": 1, "files": {"data.x": hash_of_data}}
    # and the record has all hashes
    hash_of_manifest = sha256(tmp_path / "results/manifest.x")
    record = json.loads((tmp_path / "results/provenance.x").read_text())
    assert record["inputs"] == {"in.txt": sha256(tmp_path / "in.txt")}
    assert record["outputs"] == {
        "results/data.x": hash_of_data,
        "results/manifest.x": hash_of_manifest,
    }
    assert record["sizes"]["results/data.x"] == len("made")
    # and what job it was, and what it cost
    assert record["rule"] == "r"
    assert record["log"] == "logs/n.log"
    assert record["cfg"] == {"a": 1}
    assert record["commit"] is None
    assert record["versions"]["numpy"] == np.__version__
    assert record["seconds"] >= record["cpu_seconds"] * 0.5
    assert record["peak_memory"] > 10**7
    assert private_files(tmp_path) == []


def test_the_manifest_gets_its_name_after_the_files_that_it_lists(start, monkeypatch):
    # given
    named_files = []
    rename = os.replace

    def rename_and_note(source, target):
        rename(source, target)
        named_files.append(Path(target))

    monkeypatch.setattr(os, "replace", rename_and_note)
    outputs = {name: f"results/{name}.x" for name in ("manifest", "provenance", "data", "more")}
    # when
    with start(outputs=outputs) as out:
        for name in ("data", "more"):
            out[name].write_text(name)
    # then
    published = [path.stem for path in named_files if path.parent == Path("results")]
    assert sorted(published) == sorted(outputs)
    *_, last = published
    assert last == "manifest"


@pytest.fixture
def two_disks(monkeypatch):
    """Renaming from work/ to another folder fails, as between disks."""
    rename = os.replace

    def rename_on_one_disk(source, target):
        is_in_work = Path(source).is_relative_to("work")
        stays_in_work = Path(target).is_relative_to("work")
        if is_in_work and not stays_in_work:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_on_one_disk)


OUTPUTS = {
    "data": "results/data.x",
    "archive": "results/archive.x",
    "provenance": "results/provenance.x",
}


@pytest.mark.usefixtures("two_disks")
def test_results_may_lie_on_another_disk_than_work(start, tmp_path):
    # given
    results = tmp_path / "results"
    results.mkdir()
    (results / ".data.x.copy").write_text("of a job that was killed")
    time_of_data = 1e9
    users_archive = tmp_path / "in.txt"
    # when
    with start(outputs=OUTPUTS) as out:
        out["data"].write_text("made")
        os.utime(out["data"], (time_of_data, time_of_data))
        out["archive"].symlink_to(users_archive)
    # then
    names = sorted(path.name for path in results.iterdir())
    assert names == ["archive.x", "data.x", "provenance.x"]
    assert (results / "data.x").read_text() == "made"
    assert (results / "data.x").stat().st_mtime == time_of_data
    assert (results / "archive.x").readlink() == users_archive, "it is not copied"


@pytest.mark.usefixtures("two_disks")
def test_where_the_other_disk_is_full_nothing_is_half_written(start, tmp_path, monkeypatch, capfd):
    # given
    copy = shutil.copy2

    def copy_until_full(source, target, **options):
        if source.name == "archive.x":
            target.write_text("a pa")
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, "copy2", copy_until_full)
    # when
    with pytest.raises(SystemExit), start(outputs=OUTPUTS) as out:
        out["data"].write_text("made")
        out["archive"].write_text("a part and another")
    # then
    assert list((tmp_path / "results").iterdir()) == []
    printed = capfd.readouterr().err
    assert "results/.archive.x.copy: no space is left" in printed, "the disk that is full is named"


def assert_words_of_lines(lines, words):
    """Each line has its word, and there are no others."""
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert word in line


@pytest.mark.parametrize(
    ("outputs", "printed"), [({"data": "x"}, ["warning"]), ({}, ["line", "warning", "done"])]
)
def test_a_job_with_outputs_prints_only_what_went_wrong_and_its_log_has_all(
    start, tmp_path, capfd, outputs, printed
):
    # when
    with start(outputs=outputs) as out:
        log.info("a line")
        log.warning("a warning")
        for path in out.values():
            path.touch()
    # then
    assert_words_of_lines(capfd.readouterr().err.splitlines(), printed)
    lines_of_log = (tmp_path / "logs/n.log").read_text().splitlines()
    assert_words_of_lines(lines_of_log, ["line", "warning", "done"])


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_job_cleans_up_undisturbed_by_more_signals(start, tmp_path, first):
    # when a job is stopped, and again while it cleans up
    pid = os.fork()
    is_child = pid == 0
    if is_child:
        try:
            with start() as out:
                out["data"].write_text("half")
                try:
                    os.kill(os.getpid(), first)
                finally:
                    os.kill(os.getpid(), signal.SIGINT)
                    os.kill(os.getpid(), signal.SIGTERM)
                    (tmp_path / "cleaned").touch()
        except SystemExit as end:
            os._exit(end.code)
        finally:
            os._exit(1)
    # then
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + first
    assert (tmp_path / "cleaned").exists()
    assert private_files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("has_state", [True, False])
def test_an_interrupted_job_says_so_and_whether_the_next_call_goes_on(
    start, tmp_path, capfd, number, has_state
):
    with pytest.raises(SystemExit) as end, start(resumes="state.pt") as out:
        if has_state:
            out["data"].with_name("state.pt").write_text("half")
        os.kill(os.getpid(), number)
    assert end.value.code == 128 + number
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "interrupted" in printed
    assert ("saved state" in printed) == has_state
    assert "interrupted" in (tmp_path / "logs/n.log").read_text()


@pytest.mark.parametrize(
    ("error", "computes_again"),
    [
        (PermanentError("training diverged."), False),
        (OutOfMemoryError("CUDA out of memory"), False),
        (UserError("the hub doesn't answer."), True),
        (OSError(errno.ENOSPC, "", "a.npy"), True),
        (MemoryError(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_retry_computes_only_what_may_end_otherwise(start, capfd, error, computes_again):
    # given
    with pytest.raises(SystemExit), start():
        raise error
    first_sentence = capfd.readouterr().err
    # when
    for attempt in (2, 3):
        computed = False
        with pytest.raises(SystemExit), start(attempt=attempt):
            computed = True
            raise error
        # then
        assert computed is computes_again
        assert capfd.readouterr().err == first_sentence


def test_a_new_call_and_other_settings_compute_what_failed_before(start):
    def fail_for_good():
        with pytest.raises(SystemExit), start():
            raise PermanentError("training diverged.")

    fail_for_good()
    with start(attempt=1) as out:
        out["data"].write_text("the machine has a larger GPU now")
    fail_for_good()
    with start(attempt=2, cfg={"a": 2}) as out:
        out["data"].write_text("the first attempt with these settings never began")


def test_what_is_kept_of_a_failure_is_removed_when_the_job_has_succeeded(start, tmp_path):
    with pytest.raises(SystemExit), start():
        raise PermanentError("training diverged.")
    with start(cfg={"a": 2}) as out:
        out["data"].write_text("made")
        out["manifest"].write_text("{}")
    assert private_files(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (UserError("the disk is a teapot."), "the disk is a teapot."),
        (OSError(errno.ENOSPC, "", "a.npy"), "a.npy: "),
        (MemoryError(), "--cores"),
        (OutOfMemoryError(), "compute.evaluation_batch_size"),
        (KeyError("k"), "KeyError: 'k' "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failed_job_says_why_and_leaves_nothing(start, tmp_path, capfd, error, reported):
    # when
    with pytest.raises(SystemExit), start() as out:
        out["data"].write_text("half")
        raise error
    # then
    printed = capfd.readouterr().err
    text_of_log = (tmp_path / "logs/n.log").read_text()
    assert printed.startswith("r n: ")
    assert reported in printed
    assert reported in text_of_log
    has_traceback = "Traceback" in text_of_log
    is_explained = isinstance(error, UserError | OSError)
    assert has_traceback != is_explained
    assert not (tmp_path / "results").exists()
    kept = {path.name for path in (tmp_path / "work").glob("*/*")}
    assert kept == ({"job", "failure.txt"} if isinstance(error, OutOfMemoryError) else set())


def write_text(path):
    """Write 100 kB of text."""
    path.write_text("a" * 100_000)


def write_parquet(path):
    """Write a table of more than 100 kB."""
    pq.write_table(pa.table({"a": [str(number) for number in range(50_000)]}), path)


def write_safetensors(path):
    """Write a tensor of 400 kB."""
    safetensors.numpy.save_file({"a": np.zeros(50_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_parquet, write_safetensors])
def test_a_file_larger_than_a_limit_is_a_sentence(start, tmp_path, capfd, limited_files, write):
    """With `ulimit -f`, a job says so in one line, whichever library writes.

    It leaves nothing.
    """
    # when
    with pytest.raises(SystemExit), start() as out, limited_files(20_000):
        write(out["data"])
    # then
    (line,) = capfd.readouterr().err.splitlines()
    assert "the file is larger" in line
    assert "ulimit -f" in line
    assert "Traceback" not in (tmp_path / "logs/n.log").read_text()
    assert not (tmp_path / "results").exists()
    assert private_files(tmp_path) == []


FAILING_SCRIPT = """
import _run
from rib.base.errors import UserError

raise {error}("results/a.csv is missing; run again.") from OSError("no such file")
"""


@pytest.mark.parametrize("error", ["UserError", "ValueError"])
def test_a_script_that_fails_outside_of_its_job_shows_a_users_error_as_a_sentence(
    tmp_path, pytestconfig, error
):
    # given
    script = tmp_path / "script.py"
    script.write_text(FAILING_SCRIPT.format(error=error))
    scripts = pytestconfig.rootpath / "workflow/scripts"
    # when
    process = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        capture_output=True,
        text=True,
    )
    # then
    assert process.returncode == 1
    assert process.stdout == ""
    if error == "UserError":
        assert process.stderr == "results/a.csv is missing; run again.\n"
    else:
        assert "Traceback" in process.stderr


def test_where_a_gpu_is_too_small_for_an_evaluation_a_setting_that_there_is_is_named(pytestconfig):
    config = yaml.safe_load((pytestconfig.rootpath / "config.yaml").read_text())
    message = message_of(OutOfMemoryError(), "evaluate", "log")
    settings = re.findall(r"(\w+)\.(\w+) in config", message)
    assert ("compute", "evaluation_batch_size") in settings
    for section, key in settings:
        assert key in config[section]
    assert "batch_size" not in message_of(OutOfMemoryError(), "compute_fisher", "log")
    rules = (pytestconfig.rootpath / "workflow/rules/features.smk").read_text()
    assert "rule compute_fisher:" in rules


def test_a_forgotten_output_is_an_error(start, tmp_path, capfd):
    with pytest.raises(SystemExit), start():
        pass
    assert "'data'" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()


def test_what_a_killed_job_left_is_swept_away(start, tmp_path):
    # given a job that was killed
    pid = os.fork()
    is_child = pid == 0
    if is_child:
        with start() as out:
            out["data"].write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert private_files(tmp_path) != []
    assert not (tmp_path / "results").exists()
    # when it runs again
    with start() as out:
        out["data"].write_text("whole")
    # then
    assert (tmp_path / "results/data.x").read_text() == "whole"
    assert private_files(tmp_path) == []


@pytest.mark.parametrize("stopped", [UserError("no."), KeyboardInterrupt()])
def test_a_job_that_resumes_keeps_what_it_had_until_it_is_done_or_is_another(
    start, tmp_path, stopped
):
    # given
    resuming = {"outputs": {"data": "data.x"}, "resumes": "data.x"}
    # when it is stopped
    with pytest.raises((SystemExit, KeyboardInterrupt)), start(**resuming) as out:
        out["data"].write_text("half")
        raise stopped
    # then it goes on
    with pytest.raises((SystemExit, KeyboardInterrupt)), start(**resuming) as out:
        text_at_start = out["data"].read_text()
        raise stopped
    assert text_at_start == "half"
    # and with other settings it starts again
    with start(**resuming, cfg={"a": 2}) as out:
        was_there_at_start = out["data"].exists()
        out["data"].write_text("whole")
    assert not was_there_at_start
    assert (tmp_path / "data.x").read_text() == "whole"
    assert private_files(tmp_path) == []


def test_settings_that_json_would_change_are_refused(start, capfd):
    with pytest.raises(SystemExit), start(cfg={"a": (1, 2)}):
        pytest.fail("started")
    assert "rule r" in capfd.readouterr().err


def test_the_commit_is_the_projects_and_says_when_files_differ(tmp_path, monkeypatch):
    # given a project with one commit
    def git(*arguments):
        """Run git as some user; gives what it prints."""
        user = ("-c", "user.name=n", "-c", "user.email=e")
        process = subprocess.run(
            ["git", *user, *arguments], check=True, capture_output=True, text=True
        )
        return process.stdout.strip()

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("1")
    git("init", "-q")
    git("add", "file")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    # then
    assert commit() == head
    # and where a file differs
    file.write_text("2")
    assert commit() == f"{head}-dirty"
    # and in a folder within
    folder_within = tmp_path / "inside"
    folder_within.mkdir()
    monkeypatch.chdir(folder_within)
    assert commit() is None


def test_a_move_that_is_not_permitted_names_both_of_its_ends():
    # given
    source = "work/new.safetensors"
    target = "results/old.safetensors"
    error = PermissionError(errno.EACCES, "Permission denied", source, None, target)
    # when
    message = message_of(error, "convert_model", "log")
    # then
    assert source in message
    assert target in message
    assert "change its permissions" in message
