"""The tiny family on a real SLURM cluster of one node, through profiles/slurm.

One of its jobs is killed on the way.
"""

import collections
import os
import re
import threading
from dataclasses import dataclass

import pytest

from rib.grid.evaluation_groups import groups_of
from tiny.projects import family
from tiny.projects.plugins import needs
from tiny.projects.project import Project, copy_project
from tiny.projects.waiting import wait_until
from tiny.servers import slurm

LACKING = slurm.missing()
pytestmark = [
    pytest.mark.slow,
    needs("slurm"),
    pytest.mark.skipif(
        bool(LACKING), reason=f"SLURM and munge are not installed: {', '.join(LACKING)} missing"
    ),
]
KILLED = "tiny_cnn/red/ft/all/0"
OTHER = "tiny_cnn/green/ft/all/0"
RUNS = "results/tiny/paper"
CHOICES = ("methods=[ft]", "datasets=[red,green]")
# Scripts say when they start, and the first attempt at one of them waits to be killed.
CALL = f'''    import os, time
    from pathlib import Path

    of_run = snakemake.wildcards.items()
    name = "/".join(value for key, value in of_run if key not in ("family", "protocol"))
    first = not Path("held").exists()
    with open("calls.txt", "a") as file:
        variables = [os.environ.get(key) for key in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")]
        processors = len(os.sched_getaffinity(0))
        print(snakemake.rule, name or "-", *variables, processors, file=file)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the cluster's GPUs can't compute
    if name == "{KILLED}" and snakemake.rule == "finetune" and first:
        Path("held").touch()
        time.sleep(600)
    return job(
'''


@dataclass
class Call:
    """A script that was started: its stage and job, and what SLURM gave it."""

    stage: str
    name: str
    slurm_job: str
    device: str
    processors: str


@dataclass
class Finished:
    """What is left of the run.

    Its project, SLURM's jobs, the scripts that were started, the job that was killed.
    """

    project: Project
    jobs: dict[str, dict[str, str]]
    calls: list[Call]
    killed: str


def calls(project: Project) -> list[Call]:
    path = project.folder / "calls.txt"
    return [Call(*line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def kill_one(project: Project, cluster: slurm.Cluster, killed: list[str]) -> None:
    """Cancel the job that waits, once the other of its kind has started beside it."""

    def started():
        return {call.name: call.slurm_job for call in calls(project) if call.stage == "finetune"}

    if wait_until(lambda: {KILLED, OTHER} <= started().keys(), 500, every=0.1):
        killed.append(started()[KILLED])
        cluster.run("scancel", killed[0])


def wanted_files(project: Project) -> list[str]:
    """What the run is told to make: rows before training, and after each of two trainings."""
    (evaluation_group,) = groups_of(project.grid(*CHOICES), "red")
    return [
        f"{RUNS}/evaluate/tiny_cnn/none/pretrained/all/0/{evaluation_group}.parquet",
        f"{RUNS}/evaluate/{KILLED}/{evaluation_group}.parquet",
        f"{RUNS}/evaluate/{OTHER}/{evaluation_group}.parquet",
    ]


@pytest.fixture(scope="module")
def finished_on_slurm(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("slurm") / "project")
    family.make(folder / "mine")
    project = Project(folder)
    project.edit("workflow/lib/rib/jobs/script.py", "    return job(\n", CALL)
    killed = []
    with slurm.Cluster(tmp_path_factory.mktemp("cluster") / "c") as cluster:
        killer = threading.Thread(target=kill_one, args=(project, cluster, killed), daemon=True)
        killer.start()
        project.snakemake(
            *wanted_files(project),
            *(
                "--workflow-profile",
                "profiles/slurm",
                "--slurm-partition-config",
                f"{cluster.folder}/partitions.yaml",
            ),
            # the cluster keeps no accounts, and its jobs take seconds
            *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
            config=CHOICES,
            **cluster.environment,
        )
        killer.join()
        jobs = {job["JobId"]: job for job in cluster.jobs()}
    return Finished(project, jobs, calls(project), killed[0])


def rule(job: dict[str, str]) -> str:
    return re.match(r"rule_(\w+?)(?:_wildcards_.*)?$", job["Comment"])[1]


def test_each_job_gets_what_its_rule_asks_for(finished_on_slurm):
    requests_by_rule = collections.defaultdict(set)
    for job in finished_on_slurm.jobs.values():
        (memory,) = re.findall(r"mem=(\d+M)", job["ReqTRES"])
        request = (memory, job["Partition"], job["TimeLimit"], job["NumCPUs"], job["JOB_GRES"])
        requests_by_rule[rule(job)].add(request)
    # The network's entry does not say how many parameters it has, for which many are assumed. The
    # training that was killed asks for as much again.
    assert requests_by_rule == {
        "prepare": {("2000M", "cpu", "01:00:00", "1", "(null)")},
        "convert_model": {("8000M", "cpu", "02:00:00", "1", "(null)")},
        "finetune": {
            ("8500M", "gpu", "04:00:00", "4", "gpu:1"),
            ("17000M", "gpu", "04:00:00", "4", "gpu:1"),
        },
        "evaluate": {("5500M", "gpu", "02:00:00", "4", "gpu:1")},
    }


def test_jobs_at_once_have_a_gpu_each(finished_on_slurm):
    devices = {
        call.name: call.device
        for call in reversed(finished_on_slurm.calls)
        if call.stage == "finetune"
    }
    assert sorted(devices) == [OTHER, KILLED]
    assert devices[KILLED] != devices[OTHER] and set(devices.values()) <= set("0123")


def test_jobs_are_confined_to_the_processors_that_they_ask_for(finished_on_slurm):
    """Of a machine with fewer, a job gets all."""
    of_machine = len(os.sched_getaffinity(0))
    asked = {number: int(job["NumCPUs"]) for number, job in finished_on_slurm.jobs.items()}
    submitted = [call for call in finished_on_slurm.calls if call.slurm_job != "None"]
    assert {asked[call.slurm_job] for call in submitted} == {1, 4}
    for call in submitted:
        assert int(call.processors) == min(asked[call.slurm_job], of_machine)


def test_scripts_run_once_per_job_and_small_ones_are_not_submitted(finished_on_slurm):
    counted = collections.Counter((call.stage, call.name) for call in finished_on_slurm.calls)
    assert counted.pop(("finetune", KILLED)) == 2
    assert set(counted.values()) == {1}
    stages = collections.defaultdict(list)
    for call in finished_on_slurm.calls:
        stages[call.slurm_job].append(call.stage)
    assert set(stages.pop("None")) == {"download"}
    assert sorted(stages) == sorted(finished_on_slurm.jobs), "SLURM ran nothing else"
    assert {len(found) for found in stages.values()} == {1}


def test_a_job_that_the_scheduler_kills_is_submitted_again(finished_on_slurm):
    states = {number: job["JobState"] for number, job in finished_on_slurm.jobs.items()}
    assert states.pop(finished_on_slurm.killed) == "CANCELLED"
    assert set(states.values()) == {"COMPLETED"}
    project = finished_on_slurm.project
    assert all((project.folder / path).is_file() for path in wanted_files(project))
