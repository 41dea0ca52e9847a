"""How long a stage takes on a machine, and what it waits for."""

import pytest

from rib.reporting.stages import (
    CORES,
    EPOCH_ENDS,
    EVALUATION,
    GPUS,
    PREPARATION,
    STARTS,
    TRAINING,
    Work,
    hours_by_resource,
    machine_of,
    stage_lines,
)
from tiny.changed import replace

COMPUTE = {
    "device": "auto",
    "jobs_per_gpu": 1,
    "decode_workers": "auto",
    "threads_per_job": 1,
    "warm_start": True,
}


def machine(cores, gpus, **compute):
    """A machine for a family that expects no GPU."""
    return machine_of({**COMPUTE, **compute}, cores, gpus, expects_gpu=False)


def test_the_slower_of_decoding_and_computing_counts_where_a_gpu_does_one_and_cores_the_other():
    work = Work(of_arrays=6.0, of_photos=12.0, decoding=60.0)
    few_cores = hours_by_resource(work, EVALUATION, machine(5, 2))
    assert few_cores[GPUS] == 3.0, "the photos wait for two cores of each GPU"
    assert few_cores[CORES] == 60 / 4
    many_cores = hours_by_resource(work, EVALUATION, machine(41, 2))
    assert many_cores[GPUS] == 3.0 + 6.0 and many_cores[CORES] == 0


def test_without_gpus_the_cores_do_both():
    work = Work(of_arrays=6.0, of_photos=12.0, decoding=60.0)
    hours = hours_by_resource(work, EVALUATION, machine(6, None, threads_per_job=2))
    assert hours[GPUS] == 0 and hours[CORES] == (6 + 12) / 3 + 60 / 6


def test_starts_and_ends_of_epochs_hold_the_device_of_their_job():
    work = Work(starts=8.0, epoch_ends=2.0)
    of_training = hours_by_resource(work, TRAINING, machine(16, 2))
    assert of_training[STARTS] == 4.0 and of_training[EPOCH_ENDS] == 1.0
    assert hours_by_resource(work, PREPARATION, machine(16, 2))[STARTS] == 0.5


def test_a_machine_is_what_the_call_and_the_config_say():
    shared = machine(16, 4, jobs_per_gpu=2)
    assert (shared.gpus, shared.networks_at_once, shared.devices) == (2, 4, 2)
    assert shared.decode_workers == 3 and shared.decoding_cores == 12
    assert not shared.forks_networks and shared.forks_others, "CUDA is not forked"
    on_cpu = machine(16, 4, device="cpu")
    assert on_cpu.gpus == 0 and on_cpu.networks_at_once == 16 and on_cpu.forks_networks
    assert not machine(16, None, warm_start=False).forks_others
    expected = machine_of(COMPUTE, cores=None, gpus=None, expects_gpu=True)
    assert expected.gpus == 1 and expected.cores == expected.decode_workers == 4


@pytest.mark.parametrize(
    ("change", "binding"),
    [
        ({}, "bound by GPU (GPU 4.0, job starts 1.0"),
        ({"decoding": 700.0}, "bound by cores (GPU 3.0, cores 100.0"),
        ({"starts": 9.0}, "bound by job starts"),
        ({"epoch_ends": 10.0}, "bound by epochs' ends"),
    ],
    ids=str,
)
def test_a_line_names_the_resource_that_takes_the_longest(change, binding):
    work = Work(of_arrays=3.0, of_photos=1.0, decoding=1.0, starts=1.0, photos=5000, epochs=1)
    works = {TRAINING: replace(work, **change), PREPARATION: Work()}
    head, line = stage_lines(works, machine(8, 1), unknown=[])
    assert "8 cores and 1 GPU" in head
    assert line.startswith("  training: ") and binding in line
    assert "decodes 5,000 photos" in line and line.endswith("1 epoch")


def test_what_is_not_known_is_said():
    _, line = stage_lines({TRAINING: Work(starts=1.0)}, machine(1, None), unknown=[TRAINING])
    assert line.startswith("  training: not known")
