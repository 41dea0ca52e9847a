"""The GPU lock, with stand-in devices.

Each job has a place of its own, also when others are killed.
"""

import collections
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rib.jobs.gpu_lock import resources_of_gpus, visible_devices

pytestmark = pytest.mark.thorough

FIRST = f"rib-gpu-locks-{os.geteuid()}"
SECOND = f"home/.cache/rib-gpu-locks-{os.uname().nodename}"


def start(folder, devices, hold=0.3, per_gpu=1, before="", **environment):
    """A process that locks a GPU, on a machine with four, and sees one device then.

    It writes when it has it and when it ends, and which device it sees.

    Args:
        folder: for locks, and with the driver's programs and device files.
        devices: that the process may use; None for all of the machine.
        before: a line of Python that runs before the lock is taken.
    """
    script = f"""
        import logging, os, sys, time
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from tiny.latching_cuda import install
        torch = install()
        {before}
        from rib.base.errors import UserError
        from rib.base.progress import log
        log.addHandler(logging.NullHandler())  # instead of standard error
        from rib.jobs import gpu_lock
        from pathlib import Path
        gpu_lock.NVIDIA = Path({str(folder / "dev/nvidiactl")!r})
        try:
            got = gpu_lock.lock_gpu()
        except UserError as error:
            sys.exit(str(error))
        if got is not None:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == got
            assert torch.cuda.device_count() == 1
        print(got, time.monotonic(), flush=True)
        time.sleep({hold})
        print(time.monotonic(), flush=True)
    """
    (folder / "home").mkdir(exist_ok=True)
    shared = {"TMPDIR": str(folder), "HOME": str(folder / "home")}
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    settings = {
        "PATH": f"{folder}/bin",
        "RIB_JOBS_PER_GPU": str(per_gpu),
        **shared,
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**outside_of_slurm(), **settings},
    )


def outside_of_slurm():
    """Environment variables of this process without those of SLURM."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("SLURM_", "CUDA_VISIBLE_DEVICES"))
    }


def spans(processes):
    """By device, (start, end) of every process that had it."""
    found = collections.defaultdict(list)
    for process in processes:
        first, last = process.communicate(timeout=60)[0].split("\n")[:2]
        device, begun = first.split()
        found[device].append((float(begun), float(last)))
    return found


def most_at_once(times):
    moments = sorted([(begun, 1) for begun, _ in times] + [(end, -1) for _, end in times])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_no_more_jobs_than_allowed_share_a_device_and_all_devices_are_used(tmp_path, per_gpu):
    devices = ["GPU-aa-11", "MIG-GPU-bb/1/0", "2"]
    found = spans(
        [start(tmp_path, ",".join(devices), hold=2, per_gpu=per_gpu) for _ in range(4 * per_gpu)]
    )
    assert set(found) == set(devices) and sum(map(len, found.values())) == 4 * per_gpu
    assert all(most_at_once(times) <= per_gpu for times in found.values())


def test_a_killed_job_frees_its_device_at_once(tmp_path):
    first = start(tmp_path, "0", hold=60)
    assert first.stdout.readline().startswith("0 ")
    second = start(tmp_path, "0", hold=0)
    time.sleep(0.5)
    assert second.poll() is None, "it waits"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.communicate(timeout=20)[0].startswith("0 ")
    first.stdout.close()


def test_without_devices_nothing_is_locked(tmp_path):
    process = start(tmp_path, "-1", hold=0)
    assert process.communicate(timeout=20)[0].startswith("None ")
    assert locks(tmp_path) == set()


@pytest.mark.parametrize(
    "variables", [{}, {"SLURM_GPUS_ON_NODE": "1"}, {"SLURM_JOB_GPUS": "5"}], ids=str
)
def test_two_jobs_in_an_allocation_of_one_device_have_it_one_after_the_other(tmp_path, variables):
    allocation = {"SLURM_JOB_ID": "7", **variables}
    found = spans([start(tmp_path, "0", **allocation) for _ in range(2)])
    assert len(found["0"]) == 2 and most_at_once(found["0"]) == 1


def test_steps_of_an_allocation_with_a_device_each_do_not_wait_for_each_other(tmp_path):
    """SLURM may number the device of each step as 0."""
    allocation = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2,3", "SLURM_GPUS_ON_NODE": "1"}
    with start(tmp_path, "0", hold=60, SLURM_STEP_GPUS="2", **allocation) as first:
        assert first.stdout.readline().startswith("0 ")
        second = start(tmp_path, "0", hold=0, SLURM_STEP_GPUS="3", **allocation)
        assert second.communicate(timeout=20)[0].startswith("0 ")
        first.kill()


def test_four_jobs_in_an_allocation_of_four_devices_run_at_once_each_with_its_own(tmp_path):
    """As with `salloc --gres=gpu:4`, where each job sees all four."""
    allocation = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}
    jobs = [start(tmp_path, "0,1,2,3", hold=60, **allocation) for _ in range(4)]
    try:
        devices = [job.stdout.readline().split()[0] for job in jobs]
        fifth = start(tmp_path, "0,1,2,3", hold=0, **allocation)
        time.sleep(0.5)
        fifth_waits = fifth.poll() is None
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    assert sorted(devices) == ["0", "1", "2", "3"] and fifth_waits
    assert fifth.communicate(timeout=20)[0].split()[0] in devices


def test_allocations_on_one_machine_do_not_wait_for_each_other(tmp_path):
    """SLURM numbers the devices of each from 0, though they are different ones."""
    with start(tmp_path, "0,1", hold=60, SLURM_JOB_ID="7", SLURM_GPUS_ON_NODE="2") as first:
        assert first.stdout.readline().startswith("0 ")
        second = start(tmp_path, "0,1", hold=0, SLURM_JOB_ID="8", SLURM_GPUS_ON_NODE="2")
        assert second.communicate(timeout=20)[0].startswith("0 ")
        first.kill()


def test_allocations_without_devices_of_their_own_share_those_of_the_machine(tmp_path):
    """SLURM that assigns no devices lets all jobs see all of them."""
    with start(tmp_path, "0,1", hold=60, SLURM_JOB_ID="7") as first:
        assert first.stdout.readline().startswith("0 ")
        second = start(tmp_path, "0,1", hold=0, SLURM_JOB_ID="8")
        assert second.communicate(timeout=20)[0].startswith("1 ")
        first.kill()


def test_where_the_folder_of_the_locks_cannot_be_made_the_second_choice_is_taken(tmp_path):
    (tmp_path / FIRST).touch()
    found = spans([start(tmp_path, "0"), start(tmp_path, "0")])
    assert most_at_once(found["0"]) == 1 and len(found["0"]) == 2
    assert locks(tmp_path) == {f"{SECOND}/0.0.lock"} and mode(tmp_path / SECOND) == 0o700


def test_a_machine_without_cuda_has_none(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rib.jobs.gpu_lock.NVIDIA", tmp_path / "nvidiactl")
    assert visible_devices().names == []


TWO_GPUS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b16ee7e4-9cc2-4f2f-9a9e-0c4ef3a4f3d2)
"""
ONE_OF_TWO_DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b16ee7e4-9cc2-4f2f-9a9e-0c4ef3a4f3d2)
"""


def driver(folder, listing, status=0):
    """Make the program of a driver that lists devices so, and fails if a status is not 0."""
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{listing}'\nexit {status}\n")
    program.chmod(0o755)


def devices_locked_at_once(folder, number):
    """Devices of jobs that hold them at the same time, where the environment names none."""
    jobs = [start(folder, None, hold=60) for _ in range(number)]
    try:
        return [job.stdout.readline().split()[0] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


@pytest.mark.parametrize(
    ("listing", "devices"),
    [
        (TWO_GPUS, ["0", "1"]),
        (
            ONE_OF_TWO_DIVIDED,
            [
                "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
                "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
                "GPU-b16ee7e4-9cc2-4f2f-9a9e-0c4ef3a4f3d2",
            ],
        ),
    ],
    ids=["whole", "MIG"],
)
def test_where_the_environment_names_no_devices_each_job_has_one_of_the_machine(
    tmp_path, listing, devices
):
    """CUDA is not asked which there are, or all jobs would compute on the first."""
    driver(tmp_path, listing)
    assert sorted(devices_locked_at_once(tmp_path, len(devices))) == sorted(devices)


def test_in_a_container_without_the_drivers_programs_its_device_files_count(tmp_path):
    (tmp_path / "dev").mkdir()
    for name in ("nvidia2", "nvidia7", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    devices = devices_locked_at_once(tmp_path, 2)
    assert sorted(devices) == ["0", "1"], "CUDA counts those of the container"


def test_with_a_driver_that_fails_nothing_is_locked(tmp_path):
    driver(tmp_path, "Failed to initialize NVML: Driver/library version mismatch", status=18)
    process = start(tmp_path, None, hold=0, before="torch.cuda.is_available = lambda: False")
    assert process.communicate(timeout=20)[0].startswith("None ")


def test_several_devices_that_nothing_lists_are_refused(tmp_path):
    """Each job would compute on the first of them."""
    driver(tmp_path, "Failed to initialize NVML: Unknown Error", status=255)
    process = start(tmp_path, None)
    message = process.communicate(timeout=20)[0]
    assert process.returncode == 1
    assert "4 GPUs" in message and "255" in message and "CUDA_VISIBLE_DEVICES=0,1,2,3" in message


UUIDS_BESIDE_A_LOST_CARD = [f"GPU-{number}c6d4f1ef" for number in range(8) if number != 3]
BESIDE_A_LOST_CARD = "\n".join(
    [
        *(
            f"GPU {n}: NVIDIA H100 (UUID: {uuid})"
            for n, uuid in enumerate(UUIDS_BESIDE_A_LOST_CARD)
        ),
        "Unable to determine the device handle for GPU3: 0000:5D:00.0: GPU is lost.",
    ]
)


def test_on_a_node_with_a_lost_card_the_others_are_locked(tmp_path):
    driver(tmp_path, BESIDE_A_LOST_CARD, status=15)
    assert sorted(devices_locked_at_once(tmp_path, 7)) == UUIDS_BESIDE_A_LOST_CARD


def test_a_lost_card_and_a_missing_program_of_the_driver_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("rib.jobs.gpu_lock.NVIDIA", tmp_path / "nvidiactl")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    driver(tmp_path, BESIDE_A_LOST_CARD, status=15)
    beside_a_lost_card = visible_devices()
    assert "15" in beside_a_lost_card.problem and "GPU is lost" in beside_a_lost_card.problem
    assert resources_of_gpus(jobs_per_gpu=2) == "--resources gpu=14"
    # and without the program
    monkeypatch.setenv("PATH", f"{tmp_path}/none")
    assert "nvidia-smi" in visible_devices().problem
    assert resources_of_gpus(jobs_per_gpu=2) is None


def test_devices_after_one_that_is_hidden_are_hidden_as_in_cuda(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0,-1,1")
    assert visible_devices().names == ["2", "0"]


def test_a_job_that_has_used_cuda_before_it_locks_a_gpu_is_refused(tmp_path):
    """It would compute on the first GPU, whichever it has locked."""
    driver(tmp_path, TWO_GPUS)
    process = start(tmp_path, None, before="torch.cuda.is_available()")
    message = process.communicate(timeout=20)[0]
    assert process.returncode == 1
    assert "GPU 0 is locked, but torch sees 4 GPUs" in message
    assert "CUDA_VISIBLE_DEVICES=0" in message


def test_a_build_of_torch_without_cuda_waits_for_no_gpu(tmp_path):
    driver(tmp_path, TWO_GPUS)
    process = start(tmp_path, None, hold=0, before="torch.version.cuda = None")
    assert process.communicate(timeout=20)[0].startswith("None ")
    assert locks(tmp_path) == set()


def locks(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.lock")}


def mode(path):
    return path.lstat().st_mode & 0o7777


def test_another_user_cannot_hold_a_lock(tmp_path):
    before = os.umask(0)
    try:
        assert start(tmp_path, "0", hold=0).communicate(timeout=20)[0].startswith("0 ")
    finally:
        os.umask(before)
    assert locks(tmp_path) == {f"{FIRST}/0.0.lock"} and mode(tmp_path / FIRST) == 0o700


def test_a_lock_that_is_taken_looks_new_to_what_removes_old_files(tmp_path):
    (tmp_path / FIRST).mkdir(mode=0o700)
    path = tmp_path / FIRST / "0.0.lock"
    path.touch()
    os.utime(path, (0, 0))
    assert start(tmp_path, "0", hold=0).communicate(timeout=20)[0].startswith("0 ")
    assert time.time() - path.stat().st_mtime < 60


def test_a_child_that_outlives_a_killed_job_does_not_keep_its_device(tmp_path):
    body = f"""
        import os, sys, time
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from tiny.latching_cuda import install
        install()
        from rib.jobs.gpu_lock import lock_gpu
        lock_gpu()
        if child := os.fork():
            print(child, flush=True)
        os.close(1)
        time.sleep(60)
    """
    environment = {
        **outside_of_slurm(),
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "CUDA_VISIBLE_DEVICES": "0",
    }
    command = [sys.executable, "-c", textwrap.dedent(body)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        child = int(job.stdout.readline())
        job.kill()
    try:
        assert start(tmp_path, "0", hold=0).communicate(timeout=20)[0].startswith("0 ")
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)
