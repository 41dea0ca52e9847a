"""Results that were changed after they were made: the start names them, and nothing else."""

import base64
import os
import shutil
import signal
import sys

import pytest

from tiny.project import Project
from tiny.tiers import first
from tiny.waiting import wait_until

RUN = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0"
CHECKPOINT = f"{RUN}/checkpoint.safetensors"
MAKE_CHECKPOINT = (
    *(sys.executable, "-m", "snakemake", CHECKPOINT, "--cores", "1"),
    *("--config", "family=tiny", "catalog=mine"),
)
ROWS = "results/tiny/paper/evaluate/tiny_cnn/red/lwf/all/0/tiny.parquet"
PIXELS = "results/tiny/prepare/green/160px-bicubic-crop1/images.npy"
TARGET_PIXELS, TARGET_INDEX = (
    f"results/tiny/prepare/red/160px-bicubic-crop1/{name}"
    for name in ("images.npy", "index.parquet")
)
WEIGHTS = "results/tiny/models/tiny_cnn/weights.safetensors"
TABLE = "reports/tiny/tables/mri.csv"
ARCHIVE = "data/raw/blue/blue.zip"
WARNING = "Changed since made"


def another_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # it may be a link
    path.write_bytes(data)


def a_byte_more_at_the_same_time(path):
    stat = path.stat()
    with open(path, "ab") as file:
        file.write(b"!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def an_older_version(path):
    another_byte(path)
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize(
    ("path", "change"),
    first(
        [
            *((path, another_byte) for path in (CHECKPOINT, ROWS, PIXELS, TABLE, ARCHIVE)),
            *((path, a_byte_more_at_the_same_time) for path in (CHECKPOINT, ARCHIVE)),
            (ROWS, an_older_version),
        ]
    ),
    ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) else value.__name__,
)
def test_a_changed_file_is_named_at_the_start_with_ways_out(finished_copy, path, change):
    change(finished_copy.folder / path)
    printed = finished_copy.snakemake("-n")
    (line,) = [line for line in printed.splitlines() if WARNING in line]
    assert f": {path}. " in line and f"`snakemake {path}`" in line
    assert "`snakemake pull`" in line and "`snakemake verify`" in line


@pytest.mark.thorough
def test_of_many_changed_files_the_first_are_named_and_the_others_counted_by_runs_too(
    finished_copy,
):
    for path in (CHECKPOINT, ROWS, PIXELS, TABLE):
        another_byte(finished_copy.folder / path)
    for words in (("-n",), ("results/tiny/models/tiny_cnn/manifest.json", "--cores", "1")):
        assert "and 1 more. If shared, delete them" in finished_copy.snakemake(*words)


def quiet(project, *words, **more) -> str:
    printed = project.snakemake(*words, **more)
    assert WARNING not in printed, printed
    return printed


@pytest.mark.slow
def test_a_finished_and_a_touched_run_have_no_changed_files(finished_copy):
    quiet(finished_copy, "-n")
    quiet(finished_copy, "--touch")
    quiet(finished_copy, "-n")
    quiet(finished_copy, CHECKPOINT, "--touch", "--force")
    assert "Nothing to be done" in quiet(finished_copy, "-n")


@pytest.mark.thorough
@pytest.mark.parametrize("options", ["-a", "-r"])
def test_a_copied_project_has_no_changed_files(finished, tmp_path, options):
    finished[0].run("cp", options, str(finished[0].folder), str(tmp_path / "copy"))
    copy = Project(tmp_path / "copy")
    quiet(copy, "-n")
    (copy.folder / CHECKPOINT).write_bytes(b"short")
    assert f": {CHECKPOINT}. " in copy.snakemake("-n")


@pytest.mark.slow
def test_tracked_and_pulled_projects_have_no_changed_files(finished_copy, tmp_path):
    finished_copy.git("init", "-q", "-b", "main")
    finished_copy.dvc("config", "--local", "cache.type", "symlink")
    finished_copy.dvc("remote", "add", "--local", "--default", "storage", "../storage")
    finished_copy.commit("results")
    quiet(finished_copy, "-n")
    finished_copy.dvc("push")
    finished_copy.git("clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.dvc(
        "remote",
        "add",
        "--local",
        "--default",
        "storage",
        str(finished_copy.folder.parent / "storage"),
    )
    clone.dvc("pull")
    quiet(clone, "-n")
    assert "Adopted" in quiet(clone, "--cores", "1")
    assert "Nothing to be done" in quiet(clone, "-n")


@pytest.mark.thorough
def test_what_a_run_is_making_or_a_killed_one_left_is_not_named(finished_copy):
    """A job whose outputs are half there, beside the record of the time before."""
    markers = finished_copy.folder / ".snakemake/incomplete"
    for name in (CHECKPOINT, f"{RUN}/manifest.json"):
        (markers / base64.urlsafe_b64encode(name.encode()).decode()).write_text(
            '{"external_jobid": null}'
        )
    (finished_copy.folder / CHECKPOINT).write_bytes(b"half")
    quiet(finished_copy, "-n", "--rerun-incomplete")


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_has_no_changed_files(finished_copy):
    shutil.rmtree(finished_copy.folder / RUN)
    run = finished_copy.start(*MAKE_CHECKPOINT)
    assert wait_until(lambda: list((finished_copy.folder / "work").glob("*/job")), 60), (
        finished_copy.printed()
    )
    quiet(finished_copy, "-n")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    quiet(finished_copy, "-n")
    quiet(finished_copy, "--cores", "1")
    assert "Nothing to be done" in quiet(finished_copy, "-n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [TARGET_PIXELS, TARGET_INDEX, WEIGHTS], ids=lambda path: path.rpartition("/")[2]
)
def test_an_input_that_is_exchanged_in_mid_run_stops_its_job(finished_copy, path):
    """Once it is there again, the same command makes the same bytes."""
    folder = finished_copy.folder
    before = (folder / CHECKPOINT).read_bytes()
    shutil.rmtree(folder / RUN)
    run = finished_copy.start(*MAKE_CHECKPOINT)
    assert wait_until(lambda: list((folder / "work").glob("*/job")), 60, every=0.005), (
        finished_copy.printed()
    )
    shutil.copy2(folder / path, folder / "kept")
    another_byte(folder / path)
    assert run.wait(300) != 0, finished_copy.printed()
    assert (
        f"{path}: was changed while" in finished_copy.printed()
        and not (folder / CHECKPOINT).exists()
    )
    os.replace(folder / "kept", folder / path)
    finished_copy.snakemake(CHECKPOINT, "--cores", "1")
    assert (folder / CHECKPOINT).read_bytes() == before
