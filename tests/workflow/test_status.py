"""How far a grid has come, also while it runs."""

import re
import subprocess
import sys
import time

import pytest


def test_done_and_missing_cells_and_the_time_left(finished_copy):
    printed = finished_copy.snakemake("status", "--quiet", "all", "--cores", "1")
    assert re.search(r"^finetune +6 done +0 missing, [\d.]+ s each$", printed, re.M)
    assert re.search(r"^merge +2 done +0 missing", printed, re.M) and "nothing is missing" in printed
    printed = finished_copy.snakemake("status", "--quiet", "all", "--cores", "2", config=("seeds=[0,1]",))
    assert re.search(r"^finetune +6 done +6 missing, ", printed, re.M) and re.search(
        r"^evaluate +9 done +8 missing", printed, re.M
    )
    assert re.search(r"^time left: about [\d.]+ s with 2 jobs at once$", printed, re.M)


def test_a_grid_that_was_never_run_has_no_rate(project):
    printed = project.snakemake("status", "--quiet", "all", "--cores", "1")
    assert re.search(r"^finetune +0 done +6 missing$", printed, re.M) and "begun and not ended: 0 jobs" in printed
    assert "time left: not known" in printed


@pytest.mark.slow
def test_it_works_beside_a_run(project):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "family=tiny", "catalog=mine"]
    config = ["training={epochs: 60}", "methods=[ft]", "targets=[red]"]
    with subprocess.Popen(
        [*command, *config], cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        for _ in range(300):
            if list(project.folder.glob("work/*/job")) and list(
                project.folder.glob("logs/tiny/paper/finetune/**/*.log")
            ):
                break
            time.sleep(0.1)
        asked = [*command[:3], "status", "--quiet", "all", *command[3:], *config]
        printed = subprocess.run(asked, cwd=project.folder, capture_output=True, text=True, timeout=120)
        assert printed.returncode == 0, printed.stderr
        assert (
            "begun and not ended: 1 job" in printed.stdout
            and "logs/tiny/paper/finetune/tiny_cnn/red/ft" in printed.stdout
        )
        run.terminate()
        run.wait()
