"""The environments: what they pin, and that they have what the workflow imports."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ENVS = Path(__file__).parents[2] / "envs"
WORKFLOW = ENVS.parent / "workflow"
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


def scripts_of_environments():
    """Names of the scripts of rules by environment: {"fetch": {"download"}, ...}."""
    scripts = {}
    for file in (WORKFLOW / "rules").rglob("*.smk"):
        for rule in re.split(r"^ *rule\b", file.read_text(), flags=re.MULTILINE):
            environment = re.search(r"conda:\s*.*envs/(\w+)\.yaml", rule)
            script = re.search(r"script:\s*.*scripts/(\w+)\.py", rule)
            if environment and script:
                scripts.setdefault(environment[1], set()).add(script[1])
    return scripts


def provided_by(environment):
    """Names of the packages of a conda environment, with what they depend on."""
    dependencies = yaml.safe_load((ENVS / f"{environment}.yaml").read_text())["dependencies"]
    (to_follow,) = (part["pip"] for part in dependencies if isinstance(part, dict))
    provided = {"pip"}
    while to_follow:
        requirement = Requirement(to_follow.pop())
        name = normal(requirement.name)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name not in provided and is_needed:
            provided.add(name)
            to_follow.extend(metadata.requires(name) or [])
    return provided


@pytest.mark.parametrize("environment", ["fetch", "images", "report", "torch"])
def test_a_conda_environment_has_what_its_scripts_import(environment):
    packages_left_out = PINS.keys() - provided_by(environment)
    missing = {
        module
        for module, packages in metadata.packages_distributions().items()
        if {normal(name) for name in packages} <= packages_left_out
    }
    program = f"""
import ast, sys
from pathlib import Path

sys.modules.update(dict.fromkeys({sorted(missing)}))  # an import of None fails
sys.path.insert(0, {str(WORKFLOW / "scripts")!r})
for script in {sorted(scripts_of_environments()[environment])}:
    module = ast.parse(Path({str(WORKFLOW / "scripts")!r}, script + ".py").read_text())
    imports = [node for node in ast.walk(module) if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), script, "exec"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_environment_has_scripts():
    assert set(scripts_of_environments()) == {path.stem for path in ENVS.glob("*.yaml")}
