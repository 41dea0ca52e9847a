"""What is called beside a run, and what stops one."""

import os
import signal
import sys

import pytest

from tiny.waiting import wait_until

pytestmark = pytest.mark.thorough

CHECKPOINT = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
SNAKEMAKE = (sys.executable, "-m", "snakemake")
CONFIG = ("--config", "family=tiny", "catalog=mine")
LONG = "training={epochs: 3000}"


@pytest.fixture
def long_run(finished_copy):
    """A project, and a run that is at work there on one checkpoint, for long."""
    run = finished_copy.start(*SNAKEMAKE, CHECKPOINT, "--cores", "1", *CONFIG, LONG)
    log = finished_copy.folder / "logs/tiny/paper/finetune/tiny_cnn/red/ft/all/0.log"
    begun = os.times().elapsed
    try:
        assert wait_until(lambda: list((finished_copy.folder / "work").glob("*/job")), 60), (
            finished_copy.printed()
        )
        assert wait_until(lambda: "computing" in log.read_text(), 60), begun
        yield finished_copy, run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def test_a_run_keeps_its_locks_whatever_is_called_beside_it(long_run):
    project, run = long_run
    for job in project.processes():
        if job.pid != run.pid:
            # it stays at work, without taking the processor from the rest of this test
            job.suspend()
    before = project.state()
    assert [path for path in before if path.match(".snakemake/locks/*.lock")]
    for words in (("-n",), ("--list-rules",), ("--summary",)):
        project.snakemake(*words, config=(LONG,))
    project.rib("plan", config=(LONG,))
    project.rib("track", config=(LONG,), check=False)
    assert project.state() == before

    for words in ((CHECKPOINT, "--cores", "1"), ("--unlock",)):
        assert "active in this folder" in project.snakemake(*words, config=(LONG,), check=False)
    # another run, of other files, comes through
    project.snakemake("results/tiny/models/tiny_cnn/manifest.json", "--cores", "1")
    locks = {path: stat for path, stat in before.items() if "locks" in path.parts}
    assert locks.items() <= project.state().items() and run.poll() is None


def test_a_run_that_is_interrupted_alone_ends_its_jobs_and_forgets_nothing(long_run):
    project, run = long_run
    run.send_signal(signal.SIGINT)
    assert run.wait(60) != 0
    assert wait_until(lambda: not project.processes(), 60), "processes outlive the stop"
    printed = project.printed()
    assert "Stopped" in printed
    for sign_of_a_failure in ("failed", "Traceback", "Error"):
        assert sign_of_a_failure not in printed
    assert not [
        path for path in (project.folder / ".snakemake/incomplete").rglob("*") if path.is_file()
    ]
    assert not list((project.folder / ".snakemake/locks").glob("*.lock"))
    planned = project.planned(CHECKPOINT, config=(LONG,))
    assert planned == {"finetune": 1}, "what was finished counts"


def test_a_run_that_is_told_to_end_does_not_say_that_a_job_failed(finished_copy):
    (finished_copy.folder / CHECKPOINT).unlink()
    run = finished_copy.start(*SNAKEMAKE, CHECKPOINT, "--cores", "1", *CONFIG)
    assert wait_until(lambda: list((finished_copy.folder / "work").glob("*/job")), 60), (
        finished_copy.printed()
    )
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) != 0
    printed = finished_copy.printed()
    assert "Stopped" in printed and "failed" not in printed and "Traceback" not in printed
    assert (finished_copy.folder / CHECKPOINT).exists() and finished_copy.planned(CHECKPOINT) == {}
