"""The environments: what they pin, by which hash, and that pip refuses anything else."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"
LOCKED = [
    path for path in sorted(ENVS.glob("requirements*.txt")) if path.stem != "requirements-torch"
]
TORCH = (ENVS / "requirements-torch.txt").read_text().splitlines()[1:]


def normal(name):
    """A distribution's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path):
    """Version and hashes by name."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text()):
        if match := re.match(r"([\w.-]+)==([\w.]+)", block):
            found[normal(match[1])] = match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
    return found


PINS = pins(ENVS / "requirements.txt")
PROJECT = tomllib.loads((ENVS.parent / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.stem)
def test_everything_is_pinned_with_hashes_and_once(path):
    lines = [line for line in path.read_text().splitlines() if re.match(r"[^#\s-]", line)]
    assert len(pins(path)) == len(lines) > 0
    assert all(hashes for _, hashes in pins(path).values())
    assert path.stem == "requirements" or not pins(path).keys() & PINS.keys()


@pytest.mark.parametrize("path", sorted(ENVS.glob("requirements*.in")), ids=lambda path: path.stem)
def test_every_direct_requirement_is_pinned_and_torch_is_a_range(path):
    direct = re.findall(r"^[a-zA-Z][\w.-]*", path.read_text(), re.MULTILINE)
    assert direct and {normal(name) for name in direct} <= pins(path.with_suffix(".txt")).keys()
    assert not any("==" in line for line in TORCH) and not {"torch", "torchvision"} & PINS.keys()


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_pinned_versions(path):
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (pip,) = (part["pip"] for part in dependencies if isinstance(part, dict))
    versions = dict(part.split("==") for part in pip if part not in TORCH)
    versions |= dict(
        part.split(" ==")
        for part in dependencies
        if isinstance(part, str) and part.startswith("pip ")
    )
    assert {normal(name): version for name, version in versions.items()} == {
        normal(name): PINS[normal(name)][0] for name in versions
    }


def test_metadata_are_those_of_the_citation():
    citation = yaml.safe_load((ENVS.parent / "CITATION.cff").read_text())
    assert (PROJECT["version"], PROJECT["license"]) == (citation["version"], citation["license"])
    assert PROJECT["description"] == citation["title"]
    assert [author["name"] for author in PROJECT["authors"]] == [
        author["name"] for author in citation["authors"]
    ]


def test_an_editable_install_has_the_dependencies_of_the_workflow_without_its_own():
    texts = [(ENVS / name).read_text() for name in ("requirements.in", "requirements-torch.txt")]
    wanted = re.findall(r"^[a-z].*$", "".join(texts), re.MULTILINE)
    of_library = [line for line in wanted if not line.startswith(("snakemake", "dvc"))]
    assert sorted(PROJECT["dependencies"]) == sorted(of_library)
    assert len(wanted) == len(of_library) + 2


def wheel(folder, name, version, requires=()):
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        archive.writestr(
            f"{info}/METADATA",
            "\n".join([*metadata, *(f"Requires-Dist: {other}" for other in requires), ""]),
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(f"{name}.py", "")


def install(tmp_path, requirements):
    """What `make` calls, with a folder of wheels as the only index."""
    (flags,) = re.findall(r"^LOCKED := (.*)$", (ENVS.parent / "Makefile").read_text(), re.MULTILINE)
    (tmp_path / "wanted.txt").write_text(requirements)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *flags.split(),
        "--target",
        tmp_path / "site",
    ]
    where = [
        "--no-index",
        "--find-links",
        tmp_path,
        "--disable-pip-version-check",
        "-r",
        tmp_path / "wanted.txt",
    ]
    return subprocess.run([*command, *where], capture_output=True, text=True)


def test_pip_refuses_a_package_without_a_hash(tmp_path):
    wheel(tmp_path, "tqdm", PINS["tqdm"][0])
    done = install(tmp_path, f"tqdm=={PINS['tqdm'][0]}\n")
    assert done.returncode and "hashes" in done.stderr.lower()
    assert not (tmp_path / "site").exists()


def test_a_pinned_package_brings_no_other(tmp_path):
    wheel(tmp_path, "wanted", "1.0", requires=["stranger"])
    wheel(tmp_path, "stranger", "1.0")
    digest = hashlib.sha256((tmp_path / "wanted-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    done = install(tmp_path, f"wanted==1.0 --hash=sha256:{digest}\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/wanted.py").is_file() and not (tmp_path / "site/stranger.py").exists()
