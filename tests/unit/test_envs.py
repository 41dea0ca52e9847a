"""The environments agree: what conda YAML pins is what requirements.txt pins."""

from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"
PINS = {line for line in (ENVS / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("path", sorted(ENVS.glob("*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_pinned_versions(path):
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (pip,) = (part["pip"] for part in dependencies if isinstance(part, dict))
    assert set(pip) <= PINS
    (version,) = (part.split("==")[1] for part in dependencies if isinstance(part, str) and part.startswith("pip "))
    assert f"pip=={version}" in PINS


def test_every_direct_requirement_is_pinned_and_torch_is_a_range():
    for line in (ENVS / "requirements.in").read_text().splitlines():
        name = line.split("#")[0].strip().split(">")[0].lower()
        if name.startswith("torch"):
            assert line in PINS
        elif name:
            assert any(pin.lower().startswith(f"{name}==") for pin in PINS), name
