"""The tiny family through profiles/kubernetes; a stand-in for kubectl checks each Job by Kubernetes' schema and runs it here."""

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiny import family
from tiny.plugins import needs
from tiny.project import ROOT, Project, copy_project
from tiny.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    needs("cluster_generic"),
]
PROFILE = ROOT / "profiles/kubernetes"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Environment in which kubectl is the stand-in."""
    folder = tmp_path_factory.mktemp("kubernetes")
    (folder / "bin").mkdir()
    (folder / "state").mkdir()
    program = folder / "bin/kubectl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/tiny/kubectl.py" "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    return {"PATH": path, "KUBECTL_STATE": str(folder / "state"), "KUBECTL_EVICT": "rib-finetune-"}


@pytest.fixture(scope="module")
def finished_on_kubernetes(tmp_path_factory, cluster):
    """The project, and the manifest and last state of every Job."""
    folder = copy_project(tmp_path_factory.mktemp("kubernetes_run") / "a project")
    family.make(folder / "mine")
    project = Project(folder)
    project.snakemake(
        *(f"results/tiny/paper/evaluate/tiny_cnn/{run}/all/0/tiny.parquet" for run in ("none/pretrained", "red/ft")),
        *("--workflow-profile", "profiles/kubernetes", "--seconds-between-status-checks", "1"),
        config=("methods=[ft]", "datasets=[red,green]"),
        **cluster,
    )
    manifests = sorted(Path(cluster["KUBECTL_STATE"]).glob("*.yaml"))
    return project, [(yaml.safe_load(path.read_text()), path.with_suffix(".state").read_text()) for path in manifests]


def test_each_job_asks_for_what_its_rule_needs(finished_on_kubernetes):
    project, jobs = finished_on_kubernetes
    asked = collections.Counter()
    for manifest, _ in jobs:
        pod = manifest["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert container["workingDir"] == str(project.folder) and limits["memory"] == requests["memory"]
        rule = manifest["metadata"]["generateName"].removeprefix("rib-").rstrip("-")
        asked[rule, limits["memory"], pod["activeDeadlineSeconds"], requests["cpu"], limits["nvidia.com/gpu"]] += 1
    assert asked == {
        ("prepare", "2000M", 3600, 1, 0): 2,
        ("convert-model", "8000M", 7200, 1, 0): 1,
        ("finetune", "4000M", 14400, 1, 1): 2,
        # two evaluations one after the other
        ("group", "4000M", 14400, 1, 1): 1,
    }


def test_a_job_that_the_cluster_evicts_is_submitted_again(finished_on_kubernetes):
    states = collections.Counter(
        (manifest["metadata"]["generateName"], state) for manifest, state in finished_on_kubernetes[1]
    )
    assert states["rib-finetune-", "Failed"] == states["rib-finetune-", "Complete"] == 1
    assert sum(count for (_, state), count in states.items() if state == "Failed") == 1


@pytest.fixture
def run_job(tmp_path, cluster):
    """Submit a script of snakemake's and give the name of its Job."""

    def submit(command, properties='{"rule": "prepare", "threads": 1, "resources": {"mem_mb": 1, "runtime": 1}}'):
        script = tmp_path / "a 'script'.sh"
        script.write_text(f"#!/bin/sh\n# properties = {properties}\n{command}\n")
        return kubectl(cluster, "python3", PROFILE / "submit.py", script, cwd=tmp_path)

    return submit


def kubectl(cluster, *words, **options):
    done = subprocess.run(words, env={**os.environ, **cluster}, capture_output=True, text=True, check=True, **options)
    return done.stdout.strip()


@pytest.mark.parametrize(("command", "end"), [("exit 0", "success"), ("exit 1", "failed")])
def test_the_state_of_a_job_is_told_as_snakemake_asks(cluster, run_job, command, end):
    job = run_job(f"sleep 1; {command}")
    assert kubectl(cluster, PROFILE / "status.sh", job) == "running"
    assert wait_until(lambda: kubectl(cluster, PROFILE / "status.sh", job) == end)


def test_a_cancelled_job_counts_as_failed_and_a_silent_server_as_nothing(cluster, run_job, tmp_path):
    job = run_job("sleep 1")
    silent = tmp_path / "kubectl"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    assert kubectl({"PATH": path}, PROFILE / "status.sh", job) == "running"
    kubectl(cluster, PROFILE / "cancel.sh", job, "job.batch/unknown")
    assert kubectl(cluster, PROFILE / "status.sh", job) == "failed"


def test_without_kubectl_there_is_one_sentence(tmp_path):
    command = [sys.executable, PROFILE / "submit.py", tmp_path / "script.sh"]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("kubectl is not installed") and not done.stdout


def test_the_profile_takes_over_what_the_others_say():
    default, slurm, here = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
        for name in ("default", "slurm", "kubernetes")
    )
    own = {"executor", "max-status-checks-per-second"}
    assert {key: value for key, value in here.items() if key not in own and "generic" not in key} == {
        key: value for key, value in slurm.items() if key != "executor"
    }
    assert default.keys() - {"cores"} <= here.keys()
