"""The environment of a job: commit, library versions and processor."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

# Libraries that results may depend on: those of networks, then those of images, tables and figures.
LIBRARIES = ["numpy", "torch", "torchvision", "timm", "safetensors", "open_clip_torch", "peft"]
LIBRARIES += ["pandas", "scipy", "pyarrow", "pillow", "scikit-image", "resvg_py", "matplotlib"]


def surroundings() -> dict[str, object]:
    """The project's commit, versions of the installed libraries and the machine."""
    machine = {"system": platform.platform(), "processor": processor(), "python": platform.python_version()}
    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return {"commit": commit(), "versions": versions, "machine": machine}


def commit() -> str | None:
    """The project's commit, with `-dirty` if tracked files differ from it; None outside a git checkout."""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # Ignore a repository that merely contains the project's folder.
    here = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path.cwd().parent)}
    try:
        return subprocess.run(describe, env=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """Model name of the processor; bitwise reproducibility depends on its instruction set."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
