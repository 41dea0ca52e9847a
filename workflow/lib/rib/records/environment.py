"""The environment of a job: commit, library versions and processor."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

# Libraries that results may depend on: those of networks, then those of images, tables and figures.
LIBRARIES = ["numpy", "torch", "torchvision", "timm", "safetensors", "open_clip_torch", "peft"]
LIBRARIES += ["pandas", "scipy", "pyarrow", "pillow", "scikit-image", "resvg_py", "matplotlib"]


CATALOGUE_FILES = (
    ".yaml",
    ".csv",
    ".py",
)  # endings of what a catalogue folder may have, besides data


def surroundings() -> dict[str, object]:
    """The project's commit, versions of the installed libraries and the machine."""
    machine = {
        "system": platform.platform(),
        "processor": processor(),
        "python": platform.python_version(),
    }
    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return {"commit": commit(), "versions": versions, "machine": machine}


def commit() -> str | None:
    """The project's commit, with `-dirty` if tracked files differ from it; None outside a git checkout."""
    describe = [
        "git",
        "--no-optional-locks",
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    # Ignore a repository that merely contains the project's folder.
    here = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path.cwd().parent)}
    try:
        return subprocess.run(
            describe, env=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def outside_git(folders: Iterable[str | Path]) -> list[str]:
    """Sorted paths of catalogue files in folders that git does not track here, so that no commit has them."""
    outside = []
    for folder in map(Path, folders):
        listing = ["git", "--no-optional-locks", "-C", str(folder), "ls-files", "-z"]
        try:
            printed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):  # not in a repository
            printed = ""
        tracked = {folder / name for name in printed.split("\0") if name}
        files = {
            path for path in folder.rglob("*") if path.suffix in CATALOGUE_FILES and path.is_file()
        }
        outside += map(str, files - tracked)
    return sorted(outside)


def processor() -> str:
    """Model name of the processor; bitwise reproducibility depends on its instruction set."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
