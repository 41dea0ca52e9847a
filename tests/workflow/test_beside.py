"""What is called beside a run, and what stops one."""

import os
import signal
import subprocess
import sys

import pytest

from tiny.waiting import wait_until

CHECKPOINT = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
SNAKEMAKE = (sys.executable, "-m", "snakemake")
CONFIG = ("--config", "family=tiny", "catalog=mine")
LONG = (*CONFIG, "training={epochs: 3000}")
LOOKS = {
    "status": ("status", *CONFIG),
    "plan": ("plan", *CONFIG),
    "dry-run": ("-n", *LONG),
    "lists": ("--list-rules", *CONFIG),
    "summary": ("--summary", *CONFIG),
}


def state(folder):
    """Times and sizes of every file, but for logs, and what the run that is at work writes meanwhile."""
    kept = [folder / part for part in ("results", "reports", "data", ".snakemake/locks", ".snakemake/metadata")]
    kept += [folder / ".snakemake/incomplete", folder / ".snakemake/runs"]
    found = {path: path.stat() for part in kept for path in part.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


@pytest.fixture
def long_run(finished_copy):
    """A project, and a run that is at work there on one checkpoint, for long."""
    run = finished_copy.start(*SNAKEMAKE, CHECKPOINT, "--cores", "1", *LONG)
    log = finished_copy.folder / "logs/tiny/paper/finetune/tiny_cnn/red/ft/all/0.log"
    begun = os.times().elapsed
    try:
        assert wait_until(lambda: list((finished_copy.folder / "work").glob("*/job")), 60), finished_copy.printed()
        assert wait_until(lambda: "computing" in log.read_text(), 60), begun
        yield finished_copy, run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def test_a_run_keeps_its_locks_whatever_is_called_beside_it(long_run):
    project, run = long_run
    before = state(project.folder)
    assert [path for path in before if path.match(".snakemake/locks/*.lock")]
    looks = {
        name: subprocess.Popen(
            [*SNAKEMAKE, *words], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for name, words in LOOKS.items()
    }
    printed = {name: (look.communicate(timeout=120)[0].decode(), look.returncode) for name, look in looks.items()}
    assert {name: status for name, (_, status) in printed.items()} == dict.fromkeys(LOOKS, 0), printed
    assert "red/ft" in printed["status"][0] and "1 job\n" in printed["status"][0]
    assert state(project.folder) == before

    for words in ((CHECKPOINT, "--cores", "1", *LONG), ("--unlock", *CONFIG)):
        second = subprocess.run([*SNAKEMAKE, *words], cwd=project.folder, capture_output=True, text=True, timeout=120)
        assert second.returncode != 0 and "active in this folder" in second.stderr
    other = "results/tiny/models/tiny_cnn/manifest.json"  # another run, of other files, comes through
    subprocess.run([*SNAKEMAKE, other, "--cores", "1", *CONFIG], cwd=project.folder, check=True, timeout=120)
    locks = {path: stat for path, stat in before.items() if "locks" in path.parts}
    assert locks.items() <= state(project.folder).items() and run.poll() is None


def test_a_run_that_is_interrupted_alone_ends_its_jobs_and_forgets_nothing(long_run):
    project, run = long_run
    run.send_signal(signal.SIGINT)
    assert run.wait(10) != 0
    assert wait_until(lambda: not project.processes(), 10), "processes outlive the stop"
    printed = project.printed()
    assert "Stopped" in printed and "failed" not in printed and "Traceback" not in printed and "Error" not in printed
    assert not [path for path in (project.folder / ".snakemake/incomplete").rglob("*") if path.is_file()]
    assert not list((project.folder / ".snakemake/locks").glob("*.lock"))
    planned = project.planned(CHECKPOINT, config=("training={epochs: 3000}",))
    assert planned == {"finetune": 1}, "what was finished counts"


def test_a_run_that_is_told_to_end_does_not_say_that_a_job_failed(finished_copy):
    (finished_copy.folder / CHECKPOINT).unlink()
    run = finished_copy.start(*SNAKEMAKE, CHECKPOINT, "--cores", "1", *CONFIG)
    assert wait_until(lambda: list((finished_copy.folder / "work").glob("*/job")), 60), finished_copy.printed()
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) != 0
    printed = finished_copy.printed()
    assert "Stopped" in printed and "failed" not in printed and "Traceback" not in printed
    assert (finished_copy.folder / CHECKPOINT).exists() and finished_copy.planned(CHECKPOINT) == {}
