"""What jobs would ask a cluster for, by profiles/slurm.

Nothing is executed and no cluster is needed.
"""

import re

import pytest
import yaml

from tiny.projects.plugins import needs
from tiny.projects.project import ROOT

pytestmark = [pytest.mark.slow, needs("slurm")]

ON_SLURM = ("--workflow-profile", "profiles/slurm")
# Rules whose jobs are not submitted.
LOCAL = {"download", "all"}


def asked(project, *config, targets=()):
    """Resources of every job that a dry-run lists, as {name: value}, by rule."""
    printed = project.listed(*targets, *ON_SLURM, config=config)
    resources_by_rule = {}
    for job in re.split(r"^ *(?:local)?rule ", printed, flags=re.M)[1:]:
        rule = re.match(r"\w+", job)[0]
        line = re.search(r"^ +resources: (.*)$", job, re.M)
        if line is not None:
            resources = dict(resource.split("=") for resource in line[1].split(", "))
            resources_by_rule.setdefault(rule, []).append(resources)
    return resources_by_rule


def test_every_submitted_job_states_its_memory_and_time(project):
    resources_by_rule = asked(project, "analyses=all")
    submitted_rules = resources_by_rule.keys() - LOCAL
    assert len(submitted_rules) > 10
    for rule in submitted_rules:
        for resources in resources_by_rule[rule]:
            assert int(resources["mem_mb"]) > 0, rule
            assert int(resources["runtime"]) > 0, rule


def test_networks_ask_for_a_gpu_and_on_a_cpu_nothing_does(project):
    gpus = {rule: {int(job.get("gpu", 0)) for job in jobs} for rule, jobs in asked(project).items()}
    computing = {"check_labels", "finetune", "evaluate"}
    assert {rule for rule, asking in gpus.items() if asking == {1}} == computing
    on_cpu = asked(project, "compute={device: cpu}")
    assert {int(job.get("gpu", 0)) for jobs in on_cpu.values() for job in jobs} == {0}


def test_the_profile_takes_over_what_the_default_one_says():
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
        for name in ("default", "slurm")
    )
    assert {**default, **slurm} == {"cores": default["cores"], **slurm}
    assert {key: slurm[key] for key in default if key != "cores"} == {
        key: value for key, value in default.items() if key != "cores"
    }
