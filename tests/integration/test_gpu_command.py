"""`make gpu` on a CPU, which tries the command itself."""

import csv
import subprocess
import sys

import pytest
import torch

from rib.report.rates import GPU_RATE_COLUMNS, GPU_RATES
from tiny.models import census
from tiny.projects.project import ROOT

pytestmark = pytest.mark.thorough

COMMAND = "tests/benchmarks/gpu.py"
UNKNOWN = "not checked on this device"


def run(*words):
    """The exit status and what a command printed, as standard output and error."""
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What the command printed on a CPU, the lines of its report, and the rows of rates."""
    report = tmp_path_factory.mktemp("gpu") / "new/report.md"
    done = run(sys.executable, COMMAND, "--device", "cpu", "--report", str(report))
    assert done.returncode == 0, done.stderr
    with (report.parent / "gpu_rates.csv").open() as file:
        rates = list(csv.DictReader(file))
    return done, report.read_text().splitlines(), rates


def test_a_report_of_a_cpu_can_be_taken_for_none_of_a_gpu(tried):
    done, lines, _ = tried
    assert lines[0].startswith("# Not a report of a GPU")
    assert lines[-1].startswith("Nothing fell short; ")
    assert lines[-1].endswith(" were not checked on this device.")
    assert done.stdout.splitlines()[-1] == lines[-1]
    assert " left" in done.stderr, "the time that is left"


def test_each_method_is_trained_twice_and_resumed_on_each_network_and_of_waiting_nothing_is_said(
    tried,
):
    _, lines, _ = tried
    for network in census.NETWORKS:
        for name in census.methods_on(network):
            cells = (f"{name} on a small {network}", UNKNOWN, "passed", "passed", UNKNOWN)
            assert f"| {' | '.join(cells)} |" in lines


def test_locks_through_snakemake_and_logits_are_tried_with_stand_ins(tried):
    _, lines, _ = tried
    (of_locks,) = [line for line in lines if line.startswith("| two jobs of Snakemake")]
    assert "locked as they should" in of_locks
    assert sum(line.startswith("| test_vit, logits against") for line in lines) == 1


def test_rates_of_a_cpu_are_beside_the_report_and_not_where_the_plan_reads_them(tried):
    _, _, rates = tried
    (row,) = rates
    assert tuple(row) == GPU_RATE_COLUMNS
    assert (row["card"], row["precision"]) == ("cpu", "fp32")
    assert float(row["evaluate"]) > 0 < float(row["train"])
    if (ROOT / GPU_RATES).is_file():
        assert "cpu," not in (ROOT / GPU_RATES).read_text()


def test_speeds_are_measured_on_a_cpu_but_held_to_no_mark(tried):
    _, lines, _ = tried
    measurements = [line for line in lines if line.startswith(("| training", "| evaluation"))]
    assert len(measurements) == 8
    assert all("not checked on this device" in line for line in measurements)
    assert sum("images/s" in line for line in measurements) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_command_says_why_and_writes_nothing(tmp_path):
    report = tmp_path / "report.md"
    done = run(sys.executable, COMMAND, "--report", str(report))
    assert done.returncode == 1 and not report.exists()
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("make gpu: torch ") and "`make gpu DEVICE=cpu`" in sentence
