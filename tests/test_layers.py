"""The library's packages in layers: contracts of import-linter, in pyproject.toml, and what those can't say."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "workflow/lib/rib"
TORCH_FREE = ("base", "config", "records", "jobs", "analysis", "figures", "reporting")
MODULES = sorted(LIBRARY.rglob("*.py"))


def broken(folder: Path, path: str) -> set[str]:
    """Contracts that the library on a path breaks, by name."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    names = set(re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE))
    assert (done.returncode == 0) == (not names) and " KEPT" in done.stdout, done.stdout + done.stderr
    return names


def test_the_library_keeps_its_contracts():
    assert broken(ROOT, "workflow/lib") == set()


LAYERS = "Packages import only from those below them"
CIRCLES = "No modules and no packages import each other"
TORCH = "What must start fast does without torch"
MERGES = "Merges are written without torch"
SNAKEMAKE = "The library does not know Snakemake"


@pytest.mark.parametrize(
    ("modules", "contracts"),
    [
        ({}, set()),
        ({"data/images.py": "from rib.config.geometry import Geometry"}, set()),
        ({"base/files.py": "import rib.figures.radar"}, {LAYERS}),
        ({"data/images.py": "def f():\n    from rib.models import network"}, {LAYERS}),
        ({"data/images.py": "import rib.models.state", "models/state.py": "import rib.data.images"}, {LAYERS, CIRCLES}),
        ({"data/images.py": "from rib.data import prepare", "data/prepare.py": "import rib.data.images"}, {CIRCLES}),
        (
            {"data/layouts/digits.py": "import rib.data.http", "data/http.py": "import rib.data.layouts.digits"},
            {CIRCLES},
        ),
        ({"reporting/page.py": "import rib.api"}, {LAYERS}),
        ({"api.py": "import torch"}, set()),
        ({"more/__init__.py": ""}, {LAYERS}),
        ({"analysis/cka.py": "def f():\n    import torch"}, {TORCH}),
        ({"analysis/cka.py": "import rib.data.images", "data/images.py": "import timm.data"}, {TORCH}),
        ({"methods/__init__.py": "import torch"}, {MERGES}),
        ({"methods/soup.py": "import rib.methods.base", "methods/base.py": "from torch import nn"}, {MERGES}),
        ({"methods/base.py": "import torch"}, set()),
        ({"jobs/script.py": "import snakemake.utils"}, {SNAKEMAKE}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "none",
)
def test_contracts_are_broken_by_what_they_forbid(tmp_path, modules, contracts):
    """In a library of modules of the same names, which are empty."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    empty = dict.fromkeys((str(path.relative_to(LIBRARY)) for path in MODULES), "")
    for name, source in {**empty, "jobs/gpu_lock.py": "import torch", **modules}.items():
        path = tmp_path / "rib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert broken(tmp_path, ".") == contracts


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_imports_are_absolute():
    """Code digests don't follow relative ones."""
    assert [path for path in MODULES if any(getattr(node, "level", 0) for node in imports(path))] == []


def test_of_safetensors_only_the_part_without_torch_is_used():
    """Where torch stays out; import-linter knows other libraries as a whole."""
    for path in (path for path in MODULES if path.relative_to(LIBRARY).parts[0] in TORCH_FREE):
        for node in imports(path):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert all(name.split(".")[0] != "safetensors" or name == "safetensors.numpy" for name in names), path
