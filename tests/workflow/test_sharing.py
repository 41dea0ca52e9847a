"""What runs made, shared through git and DVC.

Whoever pulls it has nothing to make again, and no damage slips through.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from rib.base.files import file_hash, sha256
from rib.records import provenance
from rib.records.pull import restore_metadata
from tiny.projects.project import PAGE, TABLES, Project, jobs, methods

pytestmark = pytest.mark.thorough

CHECKPOINT_RECORD = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/provenance.json"


def share(project, message):
    """Track, commit and push, as a user does."""
    printed = project.commit(message)
    project.dvc("push")
    return printed


def clone(project, folder):
    """A colleague's clone, with bytes pulled from the same storage."""
    project.git("clone", "-q", ".", str(folder))
    colleague = Project(folder)
    colleague.dvc(
        "remote",
        "add",
        "--local",
        "--default",
        "storage",
        os.path.relpath(project.folder.parent / "storage", folder),
    )
    colleague.rib("pull")
    return colleague


@pytest.fixture(scope="module")
def as_shared(finished, tmp_path_factory):
    """A finished project that is tracked, committed and pushed, and a colleague's clone.

    It is pushed to the folder beside it. Do not change it.
    """
    folder = tmp_path_factory.mktemp("as_shared")
    shutil.copytree(finished[0].folder, folder / "project", symlinks=True)
    project = Project(folder / "project")
    project.git("init", "-q", "-b", "main")
    project.git("add", "--all")
    project.git("commit", "-qm", "project")
    project.dvc(
        "remote", "add", "--local", "--default", "storage", "../storage"
    )  # beside a copy, too
    assert "tracked. To share the results" in share(project, "results")
    clone(project, folder / "colleague")
    return folder


@pytest.fixture
def shared(as_shared, tmp_path):
    """A project as it was shared, to change, its storage and the colleague's clone."""
    shutil.copytree(as_shared, tmp_path / "shared", symlinks=True)
    return Project(tmp_path / "shared/project")


@pytest.fixture
def colleague(shared):
    return Project(shared.folder.with_name("colleague"))


def test_a_colleague_has_all_bytes_and_nothing_to_do(shared, colleague):
    assert shared.products() == colleague.products()
    for name in ("reports/tiny/index.html", "results/tiny/models/tiny_cnn/provenance.json"):
        assert (shared.folder / name).read_bytes() == (colleague.folder / name).read_bytes()
    before = colleague.state()
    printed = colleague.snakemake("-n")
    assert "Nothing to be done" in printed and "missing provenance" not in printed
    assert colleague.state() == before, "a look writes nothing"
    assert "Nothing to be done" in colleague.snakemake("--cores", "1")


def test_after_plain_dvc_pull_rib_pull_fetches_nothing_and_writes_the_metadata(colleague):
    # given what `dvc pull` leaves: files with the time of the pull, which Snakemake doesn't know
    shutil.rmtree(colleague.folder / ".snakemake")
    for path in (colleague.folder / "results").rglob("*"):
        os.utime(path)
    shutil.rmtree(colleague.folder.with_name("storage"))
    # when
    printed = colleague.rib("pull")
    # then
    assert "Snakemake knows the outputs of 37 more jobs" in printed and "fetching" not in printed
    assert "Nothing to be done" in colleague.snakemake("-n")
    assert "Snakemake knows the outputs of 0 more jobs" in colleague.rib("pull")


def test_a_colleague_of_whoever_accepts_an_edit_has_nothing_to_do(shared, colleague):
    """An edit of a program that moves no number: docs/sharing.md, After an edit."""
    # given
    shared.edit("workflow/lib/rib/methods/lwf.py", "self.weight * ", "1.0 * self.weight * ")
    assert methods(shared.listed(), "finetune") == {"lwf"}
    record = shared.folder / "results/tiny/paper/finetune/tiny_cnn/red/lwf/all/0/provenance.json"
    before = record.read_bytes()
    # when
    shared.snakemake("--touch")
    assert "Nothing to be done" in shared.snakemake("-n")
    share(shared, "an edit that moves nothing")
    colleague.git("pull", "-q", str(shared.folder), "main")
    printed = colleague.rib("pull")
    # then
    assert "Nothing to be done" in colleague.snakemake("-n")
    assert "Snakemake knows the outputs of 0 more jobs" not in printed
    assert record.read_bytes() == before, "it says what made the file"
    colleague.rib("track")
    assert colleague.git("status", "--short") == ""
    colleague.edit("workflow/lib/rib/methods/lwf.py", "1.0 * self.weight * ", "self.weight * ")
    assert methods(colleague.listed(), "finetune") == {"lwf"}


def test_pull_is_refused_beside_a_run_and_what_looks_is_not(finished_copy):
    """tests/workflow/test_beside.py has track."""
    locks = finished_copy.folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("reports/tiny/index.html")
    printed = finished_copy.rib("pull", check=False)
    assert printed.startswith("Snakemake is at work in this folder") and printed.count("\n") == 1
    assert "all files match their records" in finished_copy.rib("verify")
    assert "Jobs " in finished_copy.rib("plan")


def test_git_holds_records_and_dvc_files_only(shared):
    tracked = set(shared.git("ls-files").split())
    made = {name for name in tracked if name.startswith(("results/", "data/raw/", "reports/"))}
    assert made and all(name.endswith((".dvc", "dvc.yaml")) for name in made)
    assert "results/tiny/paper/finetune/tiny_cnn.dvc" in made and "provenance.jsonl" in tracked
    assert shared.git("status", "--short") == ""


def test_after_a_pull_a_setting_of_lwf_re_runs_lwf_and_what_hangs_on_it(colleague):
    colleague.edit("workflow/catalog/methods.yaml", "temperature: 2.0", "temperature: 3.0")
    printed = colleague.listed()
    assert jobs(printed) == {"finetune": 2, "evaluate": 2, **TABLES, "draw_figures": 1, **PAGE}
    assert methods(printed, "finetune") == methods(printed, "evaluate") == {"lwf"}


@pytest.mark.slow
def test_what_a_colleague_made_again_comes_back_without_work(shared, colleague):
    colleague.edit("workflow/catalog/methods.yaml", "temperature: 2.0", "temperature: 3.0")
    colleague.snakemake()
    share(colleague, "a softer teacher")
    shared.git("pull", "-q", str(colleague.folder), "main")
    shared.rib("pull")
    assert "Nothing to be done" in shared.snakemake("-n")
    for name in (
        "reports/tiny/tables/mri.csv",
        "results/tiny/paper/finetune/tiny_cnn/red/lwf/all/0/history.csv",
    ):
        assert (shared.folder / name).read_bytes() == (colleague.folder / name).read_bytes()


def test_a_pulled_file_that_is_damaged_is_named_and_nothing_is_marked_as_done(colleague):
    """It is damaged in DVC's cache, which DVC takes for checked."""
    # given
    shutil.rmtree(colleague.folder / ".snakemake")
    path = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
    whole = (colleague.folder / path).read_bytes()
    digest = file_hash(colleague.folder / path, "md5").hex()
    cached = colleague.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    (colleague.folder / path).unlink()
    cached.unlink()
    cached.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    cached.chmod(0o444)
    # when
    printed = colleague.rib("pull", check=False)
    # then
    assert f"{path}: does not match its provenance record" in printed
    assert "Traceback (most" not in printed
    assert "`rib pull`" in printed and f"`snakemake {path} {CHECKPOINT_RECORD}`" in printed
    metadata = colleague.folder / ".snakemake/metadata"
    assert not metadata.exists() or not list(metadata.iterdir())
    # when what the advice says is done
    for file in (colleague.folder / path, colleague.folder / CHECKPOINT_RECORD, cached):
        file.unlink()
    colleague.rib("pull")
    assert "Nothing to be done" in colleague.snakemake("-n")


def test_tracking_before_anything_was_made_is_one_sentence(project):
    printed = project.rib("track", check=False)
    assert "there is nothing to track yet" in printed and "Traceback (most" not in printed


def test_dvc_shows_metrics_and_plots(colleague):
    shown = json.loads(colleague.dvc("metrics", "show", "--json"))
    # DVC names files as the system does.
    file = os.path.join("reports", "tiny", "tables", "mri.json")  # noqa: PTH118
    values = shown[""]["data"][file]["data"]["tiny_cnn"]
    assert set(values) == {"ft", "linear_probe", "lwf", "wise_ft"} and isinstance(
        values["ft"], float
    )
    colleague.dvc("plots", "show", "--out", "plots")
    page = (colleague.folder / "plots/index.html").read_text()
    assert "linear_probe" in page and "ci_low" in page


def test_tracking_a_part_does_not_take_the_rest_away(shared, tmp_path):
    shared.git("clone", "-q", ".", str(tmp_path / "partly"))
    partly = Project(tmp_path / "partly")
    shutil.copytree(
        shared.folder / "results/tiny/paper/finetune/tiny_cnn/red/ft",
        partly.folder / "results/tiny/paper/finetune/tiny_cnn/red/ft",
    )
    printed = partly.rib("track", check=False)
    assert "results that are missing here" in printed and partly.git("status", "--short") == ""


def test_with_what_is_made_of_a_grid_alone_figures_and_page_can_be_made_again(shared, tmp_path):
    shared.git("clone", "-q", ".", str(tmp_path / "reader"))
    reader = Project(tmp_path / "reader")
    reader.dvc(
        "remote", "add", "--local", "--default", "storage", str(shared.folder.parent / "storage")
    )
    reader.rib("pull", "reports")
    assert "Nothing to be done" in reader.snakemake("-n")
    reader.edit("workflow/lib/rib/analyses/radar.py", "markersize=4.5", "markersize=5.5")
    assert reader.planned() == {"draw_figures": 1, **PAGE}


def test_rows_of_a_colleague_are_not_taken_for_those_of_ones_own_checkpoints(colleague):
    """Same settings, other bytes: as if the colleague's processor rounded otherwise."""
    run = colleague.folder / "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0"
    manifest, record = (
        json.loads((run / "manifest.json").read_text()),
        provenance.read(run / "provenance.json"),
    )
    with open(run / "history.csv", "a") as file:
        file.write("other bytes\n")
    manifest["files"]["history.csv"] = sha256(run / "history.csv")
    (run / "manifest.json").write_text(json.dumps(manifest))
    for name in ("history.csv", "manifest.json"):
        record["outputs"][str((run / name).relative_to(colleague.folder))] = sha256(run / name)
    provenance.write(run / "provenance.json", record)
    shutil.rmtree(colleague.folder / ".snakemake")
    with contextlib.chdir(colleague.folder):
        restore_metadata()
    assert methods(colleague.listed(), "evaluate") == {"ft", "wise_ft"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_a_re_run_does_not_write_through_into_the_cache(shared, kind):
    shared.dvc("config", "--local", "cache.type", kind)
    shared.dvc("checkout", "--relink", "--force")
    checkpoint = (
        shared.folder / "results/tiny/paper/finetune/tiny_cnn/red/lwf/all/0/checkpoint.safetensors"
    )
    assert checkpoint.is_symlink() == (kind == "symlink") and (checkpoint.stat().st_nlink > 1) == (
        kind == "hardlink"
    )
    old = sha256(checkpoint)
    shared.edit("workflow/catalog/methods.yaml", "temperature: 2.0", "temperature: 3.0")
    shared.snakemake(str(checkpoint.relative_to(shared.folder)), "--cores", "1")
    assert sha256(checkpoint) != old and not checkpoint.is_symlink()
    objects = [
        path for path in (shared.folder / ".dvc/cache/files/md5").glob("??/*") if path.is_file()
    ]
    assert len(objects) > 100
    for path in objects:
        assert file_hash(path, "md5").hex() == path.parent.name + path.name.removesuffix(".dir"), (
            path
        )


@pytest.mark.slow
def test_pull_and_track_at_once_come_through_or_say_why_and_lose_nothing(colleague):
    expected, records = colleague.products(), (colleague.folder / provenance.FILE).read_bytes()
    shutil.rmtree(colleague.folder / "results/tiny/paper/finetune")
    colleague.git("checkout", "--", ".")  # .dvc files are in git
    config = {"pull": (), "track": ("--config", *colleague.choices())}
    library = str(colleague.folder / "workflow/lib")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    calls = [
        subprocess.Popen(
            [sys.executable, "-m", "rib.commands", name, *config[name]],
            cwd=colleague.folder,
            env={**os.environ, "PYTHONPATH": library},
            **streams,
        )
        for name in ("pull", "track")
    ]
    for call in calls:
        printed = call.communicate(timeout=300)[0]
        assert "Traceback (most" not in printed
        assert call.returncode == 0 or re.search(
            "at work in this folder|missing here|match its", printed
        ), printed
    colleague.rib("pull")
    colleague.rib("track")
    assert (
        colleague.products() == expected
        and (colleague.folder / provenance.FILE).read_bytes() == records
    )
    assert colleague.git("status", "--porcelain") == ""
    assert "all files match their records" in colleague.rib("verify")
