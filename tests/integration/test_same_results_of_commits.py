"""`make same-results` notices faults in what a project runs, and says what stands in its way."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from same_results import __main__ as command
from same_results import compare
from tiny.models import clip
from tiny.projects import family
from tiny.projects.project import ROOT, Project, copy_project

pytestmark = pytest.mark.slow

GRID = "tiny_vit"


def edited(path, before, after):
    """Replace the first such text of a file, which must be there."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def rewrite_archive(project, dataset, change):
    """Write a dataset's archive again, with its new digest in the catalogue.

    `change` gets the contents of all images by name, and gives those of the new archive.
    """
    path = project / f"mine/archives/{dataset}.zip"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(contents).items():
            archive.writestr(name, content)
    datasets = project / "mine/datasets.yaml"
    entries = yaml.safe_load(datasets.read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entries[dataset]["source"]["digest"] = f"sha256:{digest}"
    datasets.write_text(yaml.safe_dump(entries))


def change_the_default_rate(project):
    edited(project / "workflow/catalog/methods.yaml", "{paper: {lr: 0.001}}", "{paper: {lr: 0.01}}")


def drop_an_image(project):
    def without_the_last(contents):
        return dict(list(contents.items())[:-1])

    rewrite_archive(project, "green", without_the_last)


# The fault, and the beginning of a line that tells of it.
FAULTS = [
    (change_the_default_rate, f"moved  {GRID}/networks/tiny_vit/red/ft/all/0: "),
    (drop_an_image, f"gone   {GRID}/rows/tiny_vit/none/pretrained/all/0/green: 1 of 20 images"),
]


def exported(project: Path, folder: Path) -> Path:
    """Run a small grid in a project folder, and export it."""
    subprocess.run(
        [sys.executable, "-m", "same_results.export", project, folder, "--grids", GRID],
        cwd=project,
        env=command.environment_of(project),
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A project in which the grid has run, and its export."""
    folder = tmp_path_factory.mktemp("before")
    project = copy_project(folder / "project").resolve()
    family.make(project / "mine")
    clip.add(project / "mine")
    return project, exported(project, folder / "export")


@pytest.mark.parametrize(("put_in", "line"), FAULTS)
def test_a_fault_is_noticed(before, put_in, line, tmp_path):
    project, export_before = before
    changed_project = tmp_path / "project"
    shutil.copytree(project, changed_project, symlinks=True)
    put_in(changed_project)
    export_after = exported(changed_project, tmp_path / "export")
    differences = [str(each) for each in compare.differences(export_before, export_after)]
    assert any(difference.startswith(line) for difference in differences), differences


def test_the_same_code_gives_the_same_results(before, tmp_path):
    project, export_before = before
    anew = copy_project(tmp_path / "project").resolve()
    shutil.copytree(project / "mine", anew / "mine")
    export_after = exported(anew, tmp_path / "export")
    assert list(compare.differences(export_before, export_after)) == []


def called(project: Project, before: str, status: int) -> str:
    """What `make same-results` prints in a project that is a git repository."""
    shutil.copytree(Path(command.__file__).parent, project.folder / "tests/same_results")
    completed = subprocess.run(
        [sys.executable, "-m", "same_results", before],
        cwd=project.folder,
        env=command.environment_of(project.folder),
        text=True,
        capture_output=True,
    )
    assert completed.returncode == status, completed.stderr
    return completed.stderr.strip()


@pytest.fixture
def repository(tmp_path):
    """A copy of the project as a git repository with one commit."""
    project = Project(copy_project(tmp_path / "project"))
    shutil.copy(ROOT / "Makefile", project.folder)
    project.run("git", "init", "-q")
    project.git("add", "--all")
    project.git("commit", "-qm", "first")
    return project


@pytest.mark.thorough
def test_an_unknown_commit_is_one_sentence(repository):
    said = called(repository, "nothing", status=2)
    assert said == "BEFORE=nothing: git knows no such commit; see git log."


@pytest.mark.thorough
def test_an_environment_that_cannot_be_made_is_one_sentence(repository):
    requirements = repository.folder / "envs/requirements-torch.txt"
    requirements.write_text("imagenet-rib-nothing @ file:///nothing\n")
    repository.git("commit", "-aqm", "other packages")
    repository.edit("envs/requirements-torch.txt", "nothing\n", "nothing_else\n")
    repository.git("commit", "-aqm", "yet others")
    said = called(repository, "HEAD~1", status=2)
    assert ": its environment can't be made: " in said
    assert "\n" not in said
