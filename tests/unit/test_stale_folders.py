"""Private folders of killed jobs: which are removed, and which are kept to be resumed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from rib.jobs import job
from rib.jobs.job import MARK, remove_stale_folders


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(folder, name, log="logs/a.log", outputs=("results/a",)):
    """What a job leaves that was killed."""
    (folder / "work" / name).mkdir(parents=True)
    (folder / "work" / name / MARK).write_text("\n".join([log, *outputs]))
    (folder / "work" / name / "state").touch()
    (folder / "work" / f"{name}.lock").touch()


def private(folder):
    return {path.name for path in (folder / "work").iterdir() if path.is_dir()}


def test_the_folder_of_a_killed_job_stays_until_the_same_job_has_finished(here):
    begin(here, "killed")
    begin(here, "waits", log="logs/b.log", outputs=["results/b"])
    remove_stale_folders()
    assert private(here) == {"killed", "waits"}
    (here / "results").mkdir()
    (here / "results/a").touch()
    remove_stale_folders()
    assert private(here) == {"waits"} and not (here / "work/killed.lock").exists()


def test_a_killed_duplicate_goes_and_the_one_at_work_stays(here):
    begin(here, "killed")
    begin(here, "works")
    remove_stale_folders()
    assert private(here) == {"killed", "works"}, "either can be resumed"
    with FileLock(here / "work/works.lock"):
        (here / "results").mkdir()
        (here / "results/a").touch()
        remove_stale_folders()
        assert private(here) == {"works"}


def test_the_folder_of_a_job_that_makes_no_files_goes_with_its_process(here):
    begin(here, "plans", log="logs/plan.log", outputs=[])
    begin(here, "killed")
    with FileLock(here / "work/plans.lock"):
        remove_stale_folders()
        assert private(here) == {"killed", "plans"}
    remove_stale_folders()
    assert private(here) == {"killed"}


def test_a_mark_is_never_read_half_written(here):
    def begin_again():
        for _ in range(200):
            with job.private("again", "logs/a.log", {"a": "results/a"}, "state") as staged:
                (staged["a"].parent / "state").write_text("kept")

    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(begin_again)
        while not beginning.done():
            remove_stale_folders()  # reads all marks
        beginning.result()
