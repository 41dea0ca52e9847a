"""On a machine with GPUs a run must state their number, and says how."""

import re

GPUS = {"CUDA_VISIBLE_DEVICES": "0,1"}
LINE = "--resources gpu=2"
SOME_JOBS = ("--cores", "1", "--until", "download")


def test_without_the_number_of_gpus_no_job_starts_and_the_line_to_type_is_said(project):
    # when
    dry_run = project.snakemake("-n", **GPUS)
    refused = project.snakemake(*SOME_JOBS, check=False, **GPUS)
    # then
    assert LINE in dry_run
    *_, last_line = refused.splitlines()
    assert LINE in last_line and "Traceback (most" not in refused
    assert not (project.folder / "data/raw").exists()
    # and with it jobs run
    project.snakemake(*SOME_JOBS, *LINE.split(), **GPUS)
    assert (project.folder / "data/raw").exists()


def test_on_a_cpu_the_number_of_gpus_does_not_matter(project):
    on_cpu = ("compute={device: cpu}",)
    assert LINE not in project.snakemake(*SOME_JOBS, config=on_cpu, **GPUS)
    assert LINE not in project.snakemake("-n", CUDA_VISIBLE_DEVICES="")


def test_jobs_ask_a_cluster_for_no_more_time_than_config_allows(project):
    listed = project.listed("--cores", "1", config=("compute={max_runtime: 25}",))
    minutes = {int(text) for text in re.findall(r"runtime=(\d+)", listed)}
    assert max(minutes) == 25
