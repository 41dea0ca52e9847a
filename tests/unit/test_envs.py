"""The environments pin their packages, and have all packages that the workflow imports."""

import ast
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
    """Version and hashes by name: {"tqdm": ("4.70.1", ["0a1b..."])}."""
    pins_by_name = {}
    for block in re.split(r"\n(?=\S)", path.read_text()):
        pin = re.match(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)", block)
        if pin:
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
            pins_by_name[normal(pin["name"])] = (pin["version"], hashes)
    return pins_by_name


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


def dependencies_of(environment_file):
    """Packages of a conda environment: ["python >=3.11", ..., {"pip": ["tqdm==4.70.1", ...]}]."""
    return yaml.safe_load(environment_file.read_text())["dependencies"]


def requirements_of_pip(dependencies):
    """The packages that pip installs: ["tqdm==4.70.1", ...]."""
    (of_pip,) = (dependency for dependency in dependencies if isinstance(dependency, dict))
    return list(of_pip["pip"])


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_pinned_versions(path):
    dependencies = dependencies_of(path)
    versions = {}
    for requirement in requirements_of_pip(dependencies):
        if requirement not in TORCH:
            name, version = requirement.split("==")
            versions[name] = version
    for dependency in dependencies:
        if isinstance(dependency, str) and dependency.startswith("pip "):
            _, version = dependency.split(" ==")
            versions["pip"] = version
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
    """Scripts of the rules by environment: {"fetch": {scripts/download.py}, ...}."""
    scripts = {}
    for file in (WORKFLOW / "rules").rglob("*.smk"):
        for rule in re.split(r"^ *rule\b", file.read_text(), flags=re.MULTILINE):
            environment = re.search(r"conda:\s*.*envs/(?P<name>\w+)\.yaml", rule)
            script = re.search(r"script:\s*.*scripts/(?P<name>\w+\.py)", rule)
            if environment and script:
                of_environment = scripts.setdefault(environment["name"], set())
                of_environment.add(WORKFLOW / "scripts" / script["name"])
    return scripts


def import_statements(script):
    """All import statements of a script, also within functions, as lines of Python."""
    statements = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            statements.append(ast.unparse(node))
    return statements


def provided_by(environment):
    """Names of a conda environment's packages and of all their dependencies."""
    to_follow = requirements_of_pip(dependencies_of(ENVS / f"{environment}.yaml"))
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
    program = [
        "import sys",
        f"sys.modules.update(dict.fromkeys({sorted(missing)}))  # an import of None fails",
        f"sys.path.insert(0, {str(WORKFLOW / 'scripts')!r})",
    ]
    for script in sorted(scripts_of_environments()[environment]):
        program += import_statements(script)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_each_environment_has_scripts():
    assert set(scripts_of_environments()) == {path.stem for path in ENVS.glob("*.yaml")}
