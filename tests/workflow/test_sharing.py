"""What runs made, shared through git and DVC.

Whoever pulls it has nothing to make again, and no damage slips through.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from rib.base.files import file_hash, sha256
from rib.records import provenance
from rib.records.pull import restore_metadata
from tiny.projects.project import PAGE, TABLES, Project, jobs, methods

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


@pytest.mark.thorough
def test_images_of_an_own_folder_are_shared_as_an_archive_and_not_in_git(project):
    # given a dataset that is a folder of images
    images = project.folder / "mine/images"
    with zipfile.ZipFile(project.folder / "mine/archives/blue.zip") as archive:
        archive.extractall(images)
    datasets = yaml.safe_load((project.folder / "mine/datasets.yaml").read_text())
    datasets["blue"]["source"] = {"kind": "folder", "path": "images/blue"}
    (project.folder / "mine/datasets.yaml").write_text(yaml.safe_dump(datasets))
    prepared = "results/tiny/prepare/blue/160px-bicubic-crop1/manifest.json"
    project.snakemake(prepared, "--cores", "1")
    # when it is shared as docs/sharing.md says
    project.git("init", "-q", "-b", "main")
    project.dvc("remote", "add", "--local", "--default", "storage", "../storage")
    share(project, "images")
    colleague = clone(project, project.folder.parent / "colleague")
    # then the clone has the entry and the archive, no image, and nothing to make again
    assert (colleague.folder / "mine/datasets.yaml").exists()
    assert (colleague.folder / "data/raw/blue/blue.tar").exists()
    assert not (colleague.folder / "mine/images").exists()
    assert "Nothing to be done" in colleague.snakemake("-n", prepared)


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


@pytest.mark.thorough
def test_after_plain_dvc_pull_rib_pull_fetches_nothing_and_writes_the_metadata(colleague):
    # given what `dvc pull` leaves: files with the time of the pull, which Snakemake doesn't know
    shutil.rmtree(colleague.folder / ".snakemake")
    for path in (colleague.folder / "results").rglob("*"):
        os.utime(path)
    shutil.rmtree(colleague.folder.with_name("storage"))
    # when
    printed = colleague.rib("pull")
    # then
    assert "Snakemake knows the outputs of 38 more jobs" in printed and "fetching" not in printed
    assert "Nothing to be done" in colleague.snakemake("-n")
    assert "Snakemake knows the outputs of 0 more jobs" in colleague.rib("pull")


@pytest.mark.thorough
def test_jobs_that_read_a_file_in_two_roles_are_known_after_a_pull(project):
    """Trainings and tables read the manifest of `green` as that of the target and of the proxy."""
    # given
    project.edit(
        "mine/families/tiny.yaml",
        "reference: memory",
        "reference: {part_of: green, images_per_class: 2}",
    )
    config = ("datasets=[red,green]", "targets=[green]", "methods=[replay]")
    tables = f"{project.report(*config)}/tables/mri.csv"
    project.snakemake(tables, "--cores", "1", config=config)
    project.git("init", "-q", "-b", "main")
    project.dvc("remote", "add", "--local", "--default", "storage", "../storage")
    share(project, "results")
    # when
    colleague = clone(project, project.folder.parent / "colleague")
    # then
    assert "Nothing to be done" in colleague.snakemake(tables, "-n", config=config)


@pytest.mark.thorough
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


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["track", "pull"])
def test_what_changes_files_refuses_beside_a_run_and_what_looks_does_not(finished_copy, command):
    locks = finished_copy.folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("reports/tiny/index.html")
    printed = finished_copy.rib(command, check=False)
    assert printed.startswith("Snakemake is at work in this folder") and printed.count("\n") == 1
    assert "all files match their records" in finished_copy.rib("verify")
    assert "Jobs " in finished_copy.rib("plan")


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["plan", "verify", "track", "pull"])
def test_a_command_that_is_taken_for_a_target_is_named(finished_copy, command):
    printed = finished_copy.snakemake(command, check=False)
    assert f"run `rib {command}` in place of `snakemake {command}`" in printed
    assert "Traceback (most" not in printed


def test_git_holds_records_and_dvc_files_only(shared):
    tracked = set(shared.git("ls-files").split())
    made = {name for name in tracked if name.startswith(("results/", "data/raw/", "reports/"))}
    assert made and all(name.endswith((".dvc", "dvc.yaml")) for name in made)
    assert "results/tiny/paper/finetune/tiny_cnn.dvc" in made and "provenance.jsonl" in tracked
    assert shared.git("status", "--short") == ""


@pytest.mark.thorough
def test_one_setting_or_module_of_lwf_re_runs_lwf_and_what_hangs_on_it(colleague):
    colleague.edit("workflow/catalog/methods.yaml", "temperature: 2.0", "temperature: 3.0")
    printed = colleague.listed()
    assert jobs(printed) == {"finetune": 2, "evaluate": 2, **TABLES, "draw_figures": 1, **PAGE}
    assert methods(printed, "finetune") == methods(printed, "evaluate") == {"lwf"}
    colleague.edit("workflow/catalog/methods.yaml", "temperature: 3.0", "temperature: 2.0")
    assert colleague.planned() == {}
    colleague.edit("workflow/lib/rib/methods/lwf.py", "self.weight * ", "1.0 * self.weight * ")
    assert methods(colleague.listed(), "finetune") == {"lwf"}


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


@pytest.mark.thorough
def test_a_lost_record_of_snakemake_is_restored(shared):
    shared.run("rm", "-r", ".snakemake")
    shared.rib("pull")
    assert "Nothing to be done" in shared.snakemake("-n")


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_damage_of_every_kind_is_named_by_verify(colleague):
    paths = [
        "data/raw/blue/blue.zip",
        "results/tiny/prepare/green/160px-bicubic-crop1/images.npy",
        "results/tiny/models/tiny_cnn/weights.safetensors",
        "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors",
        "results/tiny/paper/evaluate/tiny_cnn/red/lwf/all/0/tiny.parquet",
    ]
    for path in paths:
        (colleague.folder / path).unlink()  # which may be a link into DVC's cache
        (colleague.folder / path).write_bytes(b"damaged")
    printed = colleague.rib("verify", check=False)
    assert "edited or damaged after it was made: 5\n" in printed and all(
        f"  {path}\n" in printed for path in paths
    )


@pytest.mark.thorough
def test_an_edited_result_is_not_tracked(finished_copy):
    finished_copy.git("init", "-q")
    table = finished_copy.folder / "reports/tiny/tables/mri.csv"
    table.write_text(table.read_text().replace("tiny_cnn", "better"))
    printed = finished_copy.rib("track", check=False)
    assert "reports/tiny/tables/mri.csv: does not match its provenance record" in printed
    assert not (finished_copy.folder / "provenance.jsonl").exists()


@pytest.mark.thorough
def test_tracking_before_anything_was_made_is_one_sentence(project):
    printed = project.rib("track", check=False)
    assert "there is nothing to track yet" in printed and "Traceback (most" not in printed


@pytest.mark.thorough
def test_tracking_twice_changes_nothing(shared):
    shared.rib("track")
    assert shared.git("status", "--short") == ""


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_tracking_a_part_does_not_take_the_rest_away(shared, tmp_path):
    shared.git("clone", "-q", ".", str(tmp_path / "partly"))
    partly = Project(tmp_path / "partly")
    shutil.copytree(
        shared.folder / "results/tiny/paper/finetune/tiny_cnn/red/ft",
        partly.folder / "results/tiny/paper/finetune/tiny_cnn/red/ft",
    )
    printed = partly.rib("track", check=False)
    assert "results that are missing here" in printed and partly.git("status", "--short") == ""


@pytest.mark.slow
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
    page = reader.folder / "reports/tiny/index.html"
    jobs = re.search(r"\d+ jobs", page.read_text())[0]
    reader.snakemake()
    assert re.search(r"\d+ jobs", page.read_text())[0] == jobs


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_what_was_pulled_over_a_killed_run_is_finished(colleague):
    marker = colleague.folder / ".snakemake/incomplete"
    marker.mkdir(parents=True, exist_ok=True)
    name = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
    (marker / base64.urlsafe_b64encode(name.encode()).decode()).write_text(
        '{"external_jobid": null}'
    )
    os.utime(colleague.folder / name)
    colleague.rib("pull")
    assert "Nothing to be done" in colleague.snakemake("-n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
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
    shared.snakemake()
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
@pytest.mark.parametrize("missing", ["results", "results/tiny/paper/finetune", ".dvc/cache"])
def test_pull_and_track_at_once_come_through_or_say_why_and_lose_nothing(
    shared, colleague, missing
):
    expected, records = colleague.products(), (colleague.folder / provenance.FILE).read_bytes()
    shutil.rmtree(colleague.folder / missing)
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
