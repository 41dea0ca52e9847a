"""The environment of `make environment`.

`import rib` works in any folder, and it is always the library of the clone.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tiny.projects import family
from tiny.projects.project import ROOT, copy_project

pytestmark = pytest.mark.thorough

WHERE = "import rib; print(rib.__file__)"


def run(*words, cwd, check=True):
    """What a command prints, in an environment without a PYTHONPATH."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, timeout=300, **streams)
    assert (done.returncode == 0) == check, done.stdout
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """A copy of the project in which `make environment` was called.

    pip alone is left out; it takes gigabytes.
    """
    folder = copy_project(tmp_path / "clone")
    shutil.copy(ROOT / "Makefile", folder)
    run("make", "environment", f"PYTHON={sys.executable}", "PIP=true", cwd=folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def python_of(folder):
    return folder / ".venv/bin/python"


def library_of(folder):
    return folder / "workflow/lib/rib/__init__.py"


def test_the_command_is_that_of_the_clone(clone, elsewhere):
    """The environment has no packages here, so that it ends with an error of an import."""
    for folder in (clone, clone.with_name("moved")):
        clone.rename(folder)
        printed = run(folder / ".venv/bin/rib", "plan", cwd=elsewhere, check=False)
        assert str(folder / "workflow/lib/rib/commands.py") in printed
        clone = folder


def test_the_library_is_imported_in_any_folder_and_where_the_clone_is_moved_to(clone, elsewhere):
    for folder in (clone, elsewhere):
        assert run(python_of(clone), "-c", WHERE, cwd=folder).strip() == str(library_of(clone))
    moved = clone.rename(clone.with_name("moved"))
    assert run(python_of(moved), "-c", WHERE, cwd=elsewhere).strip() == str(library_of(moved))


def test_a_clone_with_a_link_to_an_environment_imports_its_own_library(clone, elsewhere):
    other = copy_project(clone.with_name("other"))
    (other / ".venv").symlink_to(clone / ".venv")
    assert run(python_of(other), "-c", WHERE, cwd=elsewhere).strip() == str(library_of(other))
    assert run(python_of(clone), "-c", WHERE, cwd=elsewhere).strip() == str(library_of(clone))


def test_a_run_has_the_library_of_its_own_clone(clone):
    """Its rules and its scripts, with the environment of another clone.

    Libraries are those of this environment.
    """
    site = run(
        python_of(clone), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=clone
    )
    (Path(site.strip()) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    other = copy_project(clone.with_name("other"))
    family.make(other / "mine")
    errors = other / "workflow/lib/rib/base/errors.py"
    errors.write_text(f"{errors.read_text()}\n\nprint('the library of the other clone')\n")

    words = ("-m", "snakemake", "-n", "all", "--config", "family=tiny", "catalog=mine")
    assert "the library of the other clone" in run(python_of(clone), *words, cwd=other)

    script = (
        f"import sys; sys.path.insert(0, {str(other / 'workflow/scripts')!r}); import _run; {WHERE}"
    )
    assert str(library_of(other)) in run(python_of(clone), "-c", script, cwd=other)
