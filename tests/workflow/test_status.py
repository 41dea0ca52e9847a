"""How far a grid has come, also while it runs."""

import re

import pytest

pytestmark = pytest.mark.thorough


def test_done_and_missing_cells_and_the_time_left(finished_copy):
    lock = finished_copy.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/tiny/models/tiny_cnn/manifest.json\n")  # a killed run's
    printed = finished_copy.snakemake("status", "--cores", "1")
    assert re.search(r"^finetune +6 done +0 missing, [\d.]+ s each$", printed, re.M)
    assert (
        re.search(r"^merge +2 done +0 missing", printed, re.M) and "nothing is missing" in printed
    )
    printed = finished_copy.snakemake("status", "--cores", "2", config=("seeds=[0,1]",))
    assert re.search(r"^finetune +6 done +6 missing, ", printed, re.M) and re.search(
        r"^evaluate +9 done +8 missing", printed, re.M
    )
    assert lock.exists(), "who only looks takes no lock away"
    assert re.search(r"^time left: about [\d.]+ s with 2 jobs at once$", printed, re.M)


@pytest.mark.parametrize(
    ("options", "choice", "at_once"),
    [
        (("--cores", "4"), "compute={threads_per_job: 2}", "2 jobs"),
        (("--cores", "1"), "compute={threads_per_job: 2}", "1 job"),
        (("--cores", "4", "--resources", "gpu=1"), "compute={device: cuda}", "1 job"),
        (("--cores", "4", "--resources", "gpu=1"), "compute={device: cpu}", "4 jobs"),
    ],
)
def test_threads_and_gpus_limit_the_jobs_at_once(finished_copy, options, choice, at_once):
    printed = finished_copy.snakemake("status", *options, config=("seeds=[0,1]", choice))
    assert f" with {at_once} at once" in printed


def test_a_grid_that_was_never_run_has_no_rate(project):
    printed = project.snakemake("status", "--cores", "1")
    assert (
        re.search(r"^finetune +0 done +6 missing$", printed, re.M)
        and "started but not ended: 0 jobs" in printed
    )
    assert "time left: unknown" in printed
