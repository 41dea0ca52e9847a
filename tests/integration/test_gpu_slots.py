"""Slots of GPUs, with stand-in devices: each job has one of its own, also when others are killed."""

import collections
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rib.models import slots


def start(folder, devices, hold=0.3, per_gpu=1, **environment):
    """A process that takes a slot, writes when it has it and when it ends, and which device it sees."""
    script = f"""
        import os, sys, time
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.models.slots import take_slot
        got = take_slot(Path({str(folder / "locks")!r}))
        assert got is None or os.environ["CUDA_VISIBLE_DEVICES"] == got
        print(got, time.monotonic(), flush=True)
        time.sleep({hold})
        print(time.monotonic(), flush=True)
    """
    settings = {"CUDA_VISIBLE_DEVICES": devices, "RIB_JOBS_PER_GPU": str(per_gpu), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}, **settings},
    )


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
def test_no_more_jobs_than_agreed_share_a_device_and_all_devices_are_used(tmp_path, per_gpu):
    devices = ["GPU-aa-11", "MIG-GPU-bb/1/0", "2"]
    found = spans([start(tmp_path, ",".join(devices), per_gpu=per_gpu) for _ in range(4 * per_gpu)])
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


@pytest.mark.parametrize("devices", ["", "-1"])
def test_without_devices_a_job_runs_on_the_cpu(tmp_path, devices):
    assert start(tmp_path, devices, hold=0).communicate(timeout=20)[0].startswith("None ")


def test_devices_that_slurm_assigned_are_left_to_it(tmp_path):
    process = start(tmp_path, "0,1", hold=0, SLURM_JOB_ID="7")
    assert process.communicate(timeout=20)[0].startswith("None ")


def test_a_machine_without_cuda_has_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots.visible_devices() == []
