"""Processors of a machine of its own, and of an allocation of SLURM."""

import os

import pytest

from rib.base.processors import processors


@pytest.mark.parametrize(
    ("affinity", "given", "expected"),
    [(8, None, 8), (8, "4", 4), (1, "4", 1)],
    ids=["without SLURM", "a cluster that confines nothing", "a job that is confined further"],
)
def test_jobs_use_no_more_processors_than_affinity_and_slurm_allow(
    monkeypatch, affinity, given, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)))
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    if given is not None:
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
    assert processors() == expected
