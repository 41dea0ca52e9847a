"""The time left, kind by kind, and which jobs are at work."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from rib.jobs import job, parent_run
from rib.jobs.job import MARK, begun, sweep
from rib.records import provenance
from rib.reporting.status import at_work, log_of, print_status, status
from tiny.records import FACTS

LOGS = Path("logs/tiny")
RUN = "results/tiny/paper/{stage}/{model}/{target}/{method}/all/0/provenance.json"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(folder, seconds, **run):
    """A run's record; where it ended, it is written."""
    path = folder / RUN.format(**{"stage": "finetune", "model": "m", "target": "t", **run})
    if seconds is not None:
        path.parent.mkdir(parents=True)
        provenance.write(
            path,
            {**FACTS, "log": "l", "inputs": {}, "outputs": {}, "sizes": {}, "seconds": seconds},
        )
    return str(path.relative_to(folder))


def test_the_time_left_is_what_each_kind_of_job_took(here):
    cells = {
        "prepare": [],
        "finetune": [
            record(here, 600.0, method="ft"),
            record(here, 2.0, method="linear_probe"),
            record(here, None, method="ft", target="u"),
            *(record(here, None, method="linear_probe", target=target) for target in "uvwxyz"),
        ],
    }
    left = status(cells, {}, jobs_at_once=1)[-1]
    assert "10 min" in left  # 600 + 6 * 2 s, where the mean of both says 7 * 301 s


def test_a_method_of_which_no_job_has_ended_is_not_guessed_from_a_short_one(here):
    ended, long = record(here, 2.0, method="linear_probe"), record(here, None, method="ft")
    other = record(here, None, method="linear_probe", model="larger")
    left = status({"finetune": [ended, long, other]}, {}, 1)[-1]
    assert "2 jobs" in left and " s " not in left
    more = [record(here, None, method="linear_probe", target=target) for target in "uv"]
    left = status({"finetune": [ended, long, other, *more]}, {}, 1)[-1]
    assert "4.0 s" in left and "2 jobs" in left
    assert "missing" in status({"finetune": [ended]}, {}, 1)[-1]


def test_the_time_left_is_that_of_the_run_at_work(here, capsys):
    """Not of the cores that this call could have used."""
    parent_run.RUNS.mkdir(parents=True)
    registration = parent_run.RUNS / f"{socket.gethostname()}.1.a"
    Path(f"{registration}.jobs").write_text("1")
    cells = {
        "finetune": [record(here, 8.0, method="ft"), record(here, None, method="ft", target="u")]
    }
    with FileLock(f"{registration}.lock"):
        print_status(cells, 2, LOGS)
    assert "8.0 s with 1 job at once" in capsys.readouterr().out
    print_status(cells, 2, LOGS)
    assert "4.0 s with 2 jobs at once" in capsys.readouterr().out


def begin(folder, name, log="logs/a.log", outputs=("results/a",)):
    """What a job leaves that was killed."""
    (folder / "work" / name).mkdir(parents=True)
    (folder / "work" / name / MARK).write_text("\n".join([log, *outputs]))
    (folder / "work" / name / "state").touch()
    (folder / "work" / f"{name}.lock").touch()


def private(folder):
    return {path.name for path in (folder / "work").iterdir() if path.is_dir()}


def test_a_killed_job_counts_until_the_same_job_has_finished(here):
    begin(here, "killed")
    begin(here, "waits", log="logs/b.log", outputs=["results/b"])
    assert at_work().keys() == {"logs/a.log", "logs/b.log"}
    (here / "results").mkdir()
    (here / "results/a").touch()
    assert at_work().keys() == {"logs/b.log"}
    assert private(here) == {"killed", "waits"}, "asking takes nothing away"
    sweep()
    assert private(here) == {"waits"} and not (here / "work/killed.lock").exists()


def test_a_killed_duplicate_goes_and_the_one_at_work_stays(here):
    begin(here, "killed")
    begin(here, "works")
    sweep()
    assert private(here) == {"killed", "works"}, "either can be resumed"
    with FileLock(here / "work/works.lock"):
        (here / "results").mkdir()
        (here / "results/a").touch()
        sweep()
        assert private(here) == {"works"} and at_work().keys() == {"logs/a.log"}


def test_jobs_that_make_no_files_are_not_counted(here):
    begin(here, "plans", log="logs/plan.log", outputs=[])
    begin(here, "killed")
    with FileLock(here / "work/plans.lock"):
        sweep()
        assert at_work().keys() == {"logs/a.log"} and private(here) == {"killed", "plans"}
    sweep()
    assert private(here) == {"killed"}


def test_a_mark_is_never_read_half_written(here):
    def begin_again():
        for _ in range(200):
            with job.private("again", "logs/a.log", {"a": "results/a"}, "state") as staged:
                (staged["a"].parent / "state").write_text("kept")

    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(begin_again)
        while not beginning.done():
            assert set(begun()[0].values()) <= {"logs/a.log"}
        beginning.result()


def test_a_failed_job_is_named_with_one_line(here, capsys):
    failed, ended = record(here, None, method="ft"), record(here, 1.0, method="lwf")
    for path in (failed, ended):
        log = here / log_of(path)
        log.parent.mkdir(parents=True)
        log.write_text("07:00:00 INFO begins\n07:00:01 ERROR out of memory\nmore\n")
    print_status({"finetune": [failed, ended]}, 1, LOGS)
    printed = capsys.readouterr().out
    assert "failed: 1 job\n" in printed and f"{log_of(failed)}: out of memory\n" in printed
    assert "more" not in printed and "lwf" not in printed
    begin(here, "again", log=log_of(failed))
    print_status({"finetune": [failed]}, 1, LOGS)
    assert "failed: 0 jobs" in capsys.readouterr().out, "it runs again"
