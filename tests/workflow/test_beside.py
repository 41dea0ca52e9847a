"""What is called beside a run, and what stops one."""

import os
import signal
import sys

import pytest

from tiny.projects.waiting import wait_until

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


def test_what_is_called_beside_a_run_changes_nothing(long_run):
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
    printed = project.snakemake(CHECKPOINT, "--cores", "1", config=(LONG,), check=False)
    assert "Directory cannot be locked" in printed
    assert project.state() == before and run.poll() is None


def test_ctrl_c_ends_the_jobs_and_the_next_call_goes_on(long_run):
    """Ctrl-C reaches all processes of a terminal."""
    project, run = long_run
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) != 0
    assert wait_until(lambda: not project.processes(), 60), "processes outlive the stop"
    assert "Traceback (most" not in project.printed()
    assert not list((project.folder / ".snakemake/locks").glob("*.lock"))
    planned = project.planned(CHECKPOINT, config=(LONG,))
    assert planned == {"finetune": 1}, "what was finished counts"
