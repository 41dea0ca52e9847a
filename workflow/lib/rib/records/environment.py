"""Environment of a job for its record: commit, library versions, processor and device."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
# Files of a catalogue folder that are not data.
CATALOGUE_FILES = (".yaml", ".csv", ".py")
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


def describe_device(facts: Mapping[str, Any]) -> str:
    """Text by which devices are compared: `cpu in fp32`, `cuda (NVIDIA A100-SXM4-40GB) in bf16`.

    Args:
        facts: such as `{"device": "cpu", "precision": "fp32", "gpu": None}`; manifests of earlier
            versions have only `device`.
    """
    device = facts["device"]
    if facts.get("gpu"):
        device = f"{device} ({facts['gpu']})"
    precision = facts.get("precision", "unknown precision")
    return f"{device} in {precision}"


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


def outside_git(folders: Iterable[str | Path]) -> list[str]:
    """Sorted paths of catalogue files in these folders that git does not track.

    Results may depend on them, but no commit contains them, so the results page lists them.
    """
    untracked = []
    for folder in map(Path, folders):
        tracked = _tracked_files(folder)
        for path in folder.rglob("*"):
            is_catalogue_file = path.suffix in CATALOGUE_FILES and path.is_file()
            if is_catalogue_file and path not in tracked:
                untracked.append(str(path))
    return sorted(untracked)


def _tracked_files(folder: Path) -> set[Path]:
    """Files in a folder that git tracks, as clones lack all others; empty without a repository."""
    command = ["git", "--no-optional-locks", "-C", str(folder), "ls-files", "-z"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    names = process.stdout.split("\0")
    return {folder / name for name in names if name}


def processor() -> str:
    """Model name of the processor; bitwise reproducibility depends on its instruction set."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                _, _, name = line.partition(":")
                return name.strip()
    return platform.processor() or platform.machine()
