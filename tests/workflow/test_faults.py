"""What a run does when it or its surroundings fail: nothing is lost, and the next call goes on."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tiny.projects import family
from tiny.projects.project import ROOT, Project, copy_project
from tiny.projects.waiting import wait_until

pytestmark = pytest.mark.thorough

# What is written in config.yaml, and what in its place.
CHOICES = {
    "family: fashion": "family: tiny",
    "catalog: []": "catalog: [mine]",
    "targets: default": "targets: [red]",
    "methods: default": "methods: [ft, wise_ft]",
}

# Before a command: root then needs permissions as everybody does.
WITHOUT_OVERRIDE = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)


def small_run(folder):
    """A project in which `make run` runs a small grid of the tiny family in this environment."""
    family.make(copy_project(folder) / "mine")
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (folder / ".venv/run.done").touch()
    config = (folder / "config.yaml").read_text()
    for old, new in CHOICES.items():
        assert old in config, f"config.yaml has no {old!r}"
        config = config.replace(old, new, 1)
    (folder / "config.yaml").write_text(config)
    return Project(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results of a run that nothing disturbed."""
    project = small_run(tmp_path_factory.mktemp("whole") / "project")
    run = project.start("make", "run")
    assert run.wait(300) == 0, project.printed()
    return project.products()


@pytest.fixture
def project(tmp_path):
    return small_run(tmp_path / "project")


def differences(project, whole):
    """Results that differ from those of a run that nothing disturbed."""
    products = project.products()
    return [
        name for name in whole.keys() | products.keys() if whole.get(name) != products.get(name)
    ]


def at_work(project, stage="finetune"):
    """Whether a job of a stage has begun, and one is at work."""
    return list((project.folder / "logs").rglob(f"{stage}/**/*.log")) and list(
        (project.folder / "work").glob("*/job")
    )


def goes_on(project, whole):
    """Call `make run` once more, as after any trouble, and compare; what it printed."""
    run = project.start("make", "run")
    assert run.wait(300) == 0, project.printed()
    assert "Traceback (most" not in project.printed()
    assert differences(project, whole) == []
    return project.printed()


@pytest.mark.slow
def test_runs_killed_with_all_their_processes_go_on_to_the_same_bytes(project, whole):
    for stage in ("prepare", "finetune", "evaluate"):
        run = project.start("make", "run")
        assert wait_until(partial(at_work, project, stage), 300), project.printed()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert wait_until(lambda: not project.processes(), 5), "processes outlive the kill"
        project.unlock()
    goes_on(project, whole)


@pytest.mark.slow
def test_a_run_killed_alone_takes_its_jobs_along(project, whole):
    run = project.start("make", "run")
    assert wait_until(lambda: at_work(project), 300)
    snakemake = next(process for process in project.processes() if process.ppid() == run.pid)
    jobs = [
        process for process in project.processes() if process.pid not in (run.pid, snakemake.pid)
    ]
    snakemake.kill()
    run.wait()
    assert jobs and wait_until(lambda: not project.processes(), 20), "jobs go on without their run"
    project.unlock()
    goes_on(project, whole)


@pytest.mark.slow
def test_a_second_run_in_the_folder_stops_and_the_first_goes_on(project, whole):
    first = project.start("make", "run")
    assert wait_until(lambda: at_work(project), 300)
    command = ("snakemake", "--cores", "1")
    second = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.folder, capture_output=True, text=True
    )
    assert second.returncode != 0 and "Traceback (most" not in second.stderr
    assert "Directory cannot be locked" in second.stderr
    beside = subprocess.run(
        [sys.executable, "-m", *command, "-n"], cwd=project.folder, capture_output=True, text=True
    )
    assert beside.returncode == 0, beside.stderr
    assert first.wait(300) == 0, project.printed()
    assert differences(project, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_its_jobs_and_goes_on(project, whole, number):
    run = project.start("make", "run")
    assert wait_until(lambda: at_work(project), 300)
    os.killpg(run.pid, number)
    assert run.wait(60) != 0
    assert wait_until(lambda: not project.processes(), 20), "processes outlive the stop"
    goes_on(project, whole)


@pytest.fixture
def another_disk(tmp_path):
    """A folder that is a disk of its own, of some megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tiny", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_disk(another_disk):
    """A project on a disk of its own.

    With a function that mounts the disk again with other options.
    """
    project = small_run(another_disk / "project")

    def mount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", another_disk], check=True)

    return project, mount


def test_results_may_be_a_link_to_another_disk(project, another_disk):
    """Archives are links there, and networks files."""
    for name in ("data/raw", "results"):
        (another_disk / name).mkdir(parents=True)
        (project.folder / name).parent.mkdir(exist_ok=True)
        (project.folder / name).symlink_to(another_disk / name)
    network = "results/tiny/models/tiny_cnn/manifest.json"
    project.snakemake(network, "--cores", "1")
    assert "Nothing to be done" in project.snakemake(network, "-n")
    assert "all files match their records" in project.rib("verify")
    assert not [path for path in another_disk.rglob("*") if path.name.startswith(".")], (
        "copies are renamed"
    )


def used(project):
    """Bytes that are taken on the project's disk."""
    disk = os.statvfs(project.folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def files_on_disk(project):
    """Number of files and folders on the project's disk."""
    disk = os.statvfs(project.folder)
    return disk.f_files - disk.f_ffree


def few_bytes(project):
    """Enough for the data and models, too little for the checkpoints."""
    return f"size={used(project) + (3 << 20)}"


def few_files(number):
    """Room for this many more files."""

    def options(project):
        return f"nr_inodes={files_on_disk(project) + number}"

    return options


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(few_bytes, id="no_bytes_for_checkpoints"),
        pytest.param(few_files(60), id="no_files_for_prepared_images"),
    ],
)
def test_a_full_disk_is_said_and_nothing_is_lost(small_disk, whole, limit):
    project, remount = small_disk
    remount(limit(project))
    run = project.start("make", "run")
    assert run.wait(300) != 0
    printed = project.printed()
    of_a_job = "no space is left on the disk" in printed and "free some, and run again" in printed
    assert of_a_job or "No space left on device" in printed
    remount("size=1g,nr_inodes=100000")
    goes_on(project, whole)


@pytest.mark.slow
def test_a_read_only_folder_is_a_sentence(small_disk, whole):
    project, remount = small_disk
    goes_on(project, whole)
    remount("ro")
    done = subprocess.run(["make", "run"], cwd=project.folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert (
        "is not writable" in done.stdout + done.stderr
        and "Traceback (most" not in done.stdout + done.stderr
    )
    remount("rw")
    assert "Nothing to be done" in goes_on(project, whole)


MODEL = "results/tiny/models/tiny_cnn/manifest.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_that_was_given_gpus_does_not_compute_on_the_cpu_instead(project):
    words = ["snakemake", MODEL, "--cores", "1", "--resources", "gpu=1"]
    # Tests set this variable, with which the user would choose the CPU.
    printed = project.run(
        *("env", "-u", "CUDA_VISIBLE_DEVICES", *words, "--config", *project.choices()), check=False
    )
    assert "--resources gpu=1 gives this job a GPU" in printed
    assert "Traceback (most" not in printed
    assert not (project.folder / MODEL).exists()
    # as a run without them does
    project.snakemake(MODEL, "--cores", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", [".snakemake", "logs", "results", "reports", "data", "results/tiny/models/tiny_cnn"]
)
def test_a_folder_that_the_user_may_not_write_to_is_named(project, folder):
    project.snakemake(MODEL, "--cores", "1")
    place = project.folder / folder
    place.mkdir(parents=True, exist_ok=True)
    # An empty folder would be removed with its parent's permissions, and made anew.
    (place / "note-of-the-user.txt").write_text("keep me")
    closed = [place, *(path for path in place.rglob("*") if path.is_dir())]
    before = project.products()
    for path in closed:
        path.chmod(0o555)
    command = (
        *WITHOUT_OVERRIDE,
        sys.executable,
        "-m",
        "snakemake",
        MODEL,
        "--force",
        "--cores",
        "1",
    )
    printed = project.run(*command, check=False)
    for path in closed:
        path.chmod(0o755)
    assert folder in printed
    is_found_before_jobs = "/" not in folder
    assert "change its permissions" in printed or (
        not is_found_before_jobs and "Permission denied" in printed
    )
    assert project.products().items() >= before.items()
    project.snakemake(MODEL, "--cores", "1")
    assert "all files match their records" in project.rib("verify")


WITHOUT_FLOCK = """
import errno, fcntl, os

def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.flock = flock
"""


@pytest.mark.slow
def test_without_file_locks_dry_runs_work_and_a_run_beside_them_says_why_it_does_not(
    project, tmp_path
):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITHOUT_FLOCK)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    before = project.products()

    def start(*words):
        command = (sys.executable, "-m", "snakemake", *words)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=project.folder, env=environment, **streams)

    calls = {
        name: start(*words)
        for name, words in {"one": ["-n"], "other": ["-n"], "run": ["--cores", "1"]}.items()
    }
    printed = {name: call.communicate(timeout=300)[0] for name, call in calls.items()}
    for name in ("one", "other"):
        assert calls[name].returncode == 0 and "finetune" in printed[name], printed[name]
    assert calls["run"].returncode != 0 and "no file locks" in printed["run"]
    assert not any(
        "Traceback (most" in text or "UserWarning" in text for text in printed.values()
    ), printed
    assert project.products() == before
    project.snakemake(MODEL, "--cores", "1")
