"""How many threads decode photos."""

import os

import pytest

from rib.jobs.decode_workers import number_of_decode_workers


@pytest.fixture(autouse=True)
def outside_of_slurm(monkeypatch):
    """Remove the variables of an allocation in which the tests may run."""
    for variable in list(os.environ):
        if variable.startswith("SLURM_"):
            monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("setting", "cores", "gpus", "workers"),
    [
        (7, 64, 4, 7),  # what is stated holds
        (1, None, None, 1),
        ("auto", 65, 4, 16),
        ("auto", 64, 4, 15),  # together less than there are
        ("auto", 2, 4, 1),
        ("auto", 192, 1, 32),  # more don't help
        ("auto", 64, None, 4),
        ("auto", 64, 0, 4),
        ("auto", None, 4, 4),  # jobs run elsewhere
    ],
)
def test_threads_are_an_equal_share_of_the_cores_for_each_gpu(setting, cores, gpus, workers):
    assert number_of_decode_workers(setting, cores, gpus) == workers


TASK = {"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "9", "SLURM_CPUS_ON_NODE": "36"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "17"}
ALLOCATION = {"SLURM_CPUS_PER_TASK": "9", "SLURM_CPUS_ON_NODE": "17"}


@pytest.mark.parametrize(
    ("variables", "cores", "workers"),
    [
        (TASK, 64, 4),
        (TASK, 5, 2),  # confined to fewer, or --cores 5
        (STEP, 64, 8),
        (ALLOCATION, 64, 8),  # its script has the cores of all tasks
        ({"SLURM_CPUS_ON_NODE": "1"}, 64, 1),
        ({"SLURM_CPUS_ON_NODE": "many"}, 64, 31),
        ({"SLURM_CPUS_ON_NODE": "0"}, 64, 31),
    ],
)
def test_of_a_machine_those_cores_count_that_slurm_gave(monkeypatch, variables, cores, workers):
    for variable, stated_cores in variables.items():
        monkeypatch.setenv(variable, stated_cores)
    assert number_of_decode_workers("auto", cores, 2) == workers
    assert number_of_decode_workers(7, cores, 2) == 7
