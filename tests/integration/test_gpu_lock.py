"""The GPU lock, with stand-in devices: each job has a place of its own, also when others are killed."""

import collections
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rib.jobs.gpu_lock import visible_devices


def start(folder, devices, hold=0.3, per_gpu=1, **environment):
    """A process that locks a GPU, writes when it has it and when it ends, and which device it sees."""
    script = f"""
        import os, sys, time
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.jobs.gpu_lock import lock_gpu
        got = lock_gpu(Path({str(folder / "locks")!r}))
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
def test_no_more_jobs_than_allowed_share_a_device_and_all_devices_are_used(tmp_path, per_gpu):
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


@pytest.mark.parametrize(
    ("devices", "environment"), [("", {}), ("-1", {}), ("0,1", {"SLURM_JOB_ID": "7"})], ids=["", "-1", "SLURM's"]
)
def test_without_devices_and_with_those_that_slurm_assigned_nothing_is_locked(tmp_path, devices, environment):
    process = start(tmp_path, devices, hold=0, **environment)
    assert process.communicate(timeout=20)[0].startswith("None ")


def test_a_machine_without_cuda_has_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == []
