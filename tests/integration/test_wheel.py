"""The wheel: what is in it, and what it states.

The paper's loop runs in an environment that has the wheel and no checkout.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tiny import family
from tiny.project import ROOT

pytestmark = pytest.mark.thorough

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW_ONLY = ("snakemake", "dvc")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
LOOP = """
import sys
import pandas as pd
import rib

own = {"catalog": sys.argv[1], "cache": sys.argv[2], "training": {"epochs": 1}}
network = rib.load_model("tiny_cnn", "tiny", **own)
datasets = rib.list_datasets("tiny", catalog=sys.argv[1])
rows = [rib.evaluate(network, datasets)]
for target in ("red", "green"):
    rows.append(rib.evaluate(rib.finetune(network, target), datasets))
ri, mri = rib.robustness_improvement(pd.concat(rows), network)
print(rib.__file__, len(rib.list_models("imagenet")), len(ri), mri["method"].item())
"""


def run(*words, **more):
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=300, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files():
    """Files that git tracks, or would."""
    return run(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, files):
    """Built from a copy, since building leaves files behind."""
    source = tmp_path_factory.mktemp("source")
    for name in (
        name for name in files if not name.startswith("tests/") and (ROOT / name).is_file()
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(
        *PIP,
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        source / "made",
        source,
    )
    (made,) = (source / "made").iterdir()
    return made


def test_the_wheel_has_the_library_its_catalogue_and_schemas_and_nothing_else(wheel, files):
    places = {
        "workflow/lib/rib/": "rib/",
        "workflow/catalog/": "rib/catalog/",
        "workflow/schemas/": "rib/schemas/",
    }
    expected = {
        new + name.removeprefix(old)
        for old, new in places.items()
        for name in files
        if name.startswith(old)
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected and "rib/catalog/families/emoji.yaml" in found


def test_metadata_are_those_of_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (PROJECT["version"], PROJECT["license"]) == (citation["version"], citation["license"])
    assert PROJECT["description"] == citation["title"]
    assert [author["name"] for author in PROJECT["authors"]] == [
        author["name"] for author in citation["authors"]
    ]


def test_dependencies_are_those_of_the_workflow_without_its_own():
    text = "".join(
        (ROOT / "envs" / name).read_text() for name in ("requirements.in", "requirements-torch.txt")
    )
    wanted = re.findall(r"^[a-z].*$", text, re.M)
    name_of = {line: re.match(r"[\w.-]+", line)[0] for line in wanted}
    assert sorted(PROJECT["dependencies"]) == sorted(
        line for line in wanted if name_of[line] not in WORKFLOW_ONLY
    )
    assert set(WORKFLOW_ONLY) < set(name_of.values())
    (npm,) = re.findall(r"^[a-z].*$", (ROOT / "envs/requirements-npm.in").read_text(), re.M)
    assert PROJECT["optional-dependencies"] == {"npm": [npm]}


def test_an_installed_wheel_runs_the_loop_without_a_checkout(wheel, tmp_path):
    """The heavy dependencies are those of this environment, which are put on the path."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(*PIP, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    family.make(tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    words = (python, "-c", LOOP, tmp_path / "mine", tmp_path / "cache")
    printed = run(
        *words, cwd=tmp_path / "elsewhere", env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    place, models, runs, method = printed.split()
    assert (
        Path(place) == site / "rib/__init__.py"
        and int(models) > 10
        and (runs, method) == ("2", "ft")
    )
    assert not list((tmp_path / "elsewhere").iterdir())
