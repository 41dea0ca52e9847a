"""Environment of a job for its record: commit, library versions, processor and device."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Libraries that may affect results.
LIBRARIES = [
    # networks
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "open_clip_torch",
    "peft",
    # images, tables and figures
    "pandas",
    "scipy",
    "pyarrow",
    "pillow",
    "resvg_py",
    "matplotlib",
]
# Facts from `set_device`, such as {"device": "cuda", "precision": "bf16"}; empty in jobs that need
# no device.
_device: dict[str, str | None] = {}


def surroundings() -> dict[str, object]:
    """Facts for a job's record: commit, library versions and machine.

    For example `{"commit": "3f2a...", "versions": {"torch": "2.7.0"}, "machine": {"python":
    "3.12.3"}}`.
    """
    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    machine = {
        "system": platform.platform(),
        "processor": processor(),
        "python": platform.python_version(),
    }
    for name, value in _device.items():
        if value is not None:
            machine[name] = value
    return {"commit": commit(), "versions": versions, "machine": machine}


def set_device(facts: Mapping[str, str | None]) -> None:
    """Store the device of this process for `surroundings`.

    Args:
        facts: such as `{"device": "cpu", "precision": "fp32", "gpu": None}`, from
            `rib.models.device.facts_of`.
    """
    _device.clear()
    _device.update(facts)


def commit() -> str | None:
    """The project's commit, with `-dirty` if tracked files differ; None outside a git checkout."""
    command = [
        "git",
        "--no-optional-locks",
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    # Ignore a repository around the project's folder.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path.cwd().parent)}
    try:
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def processor() -> str:
    """Model name of the processor; bitwise reproducibility depends on its instruction set."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                _, _, name = line.partition(":")
                return name.strip()
    return platform.processor() or platform.machine()
