"""The library's packages in layers.

Contracts of import-linter, in pyproject.toml, and what those can't say.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "workflow/lib/rib"
TORCH_FREE = ("base", "config", "records", "jobs", "statistics", "figures", "report")
MODULES = sorted(LIBRARY.rglob("*.py"))


def linted(folder: Path, path: str) -> str:
    """What import-linter says of the library on a path."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))",
    ]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "\nContracts: " in done.stdout, done.stdout + done.stderr
    return done.stdout


def test_the_library_keeps_its_contracts():
    assert " 0 broken." in linted(ROOT, "workflow/lib")


# Imports that a contract forbids, by module; the other modules of the library are empty.
FORBIDDEN = {
    "base/files.py": "import rib.analyses.radar",
    "data/images.py": "import rib.models.state, timm.data\nfrom rib.data import prepare",
    "models/state.py": "import rib.data.images",
    "data/prepare.py": "import rib.data.images",
    "data/layouts/idx.py": "import rib.data.curl",
    "data/curl.py": "import rib.data.layouts.idx",
    "data/archives.py": "def f():\n    from rib.evaluation import score",
    "report/page.py": "import rib.project",
    "more/__init__.py": "",
    "statistics/cka.py": "def f():\n    import torch",
    "statistics/ri.py": "import rib.data.images",
    "methods/soup.py": "import rib.methods.base",
    "methods/base.py": "from torch import nn",
    "jobs/script.py": "import snakemake.utils",
}
# Imports that none forbids.
ALLOWED = {
    "commands.py": "import snakemake.utils",
    "jobs/gpu_lock.py": "import torch",
    "records/snakemake_metadata.py": "import snakemake.persistence",
    "data/view.py": "from rib.config.geometry import Geometry",
    "training/finetune.py": "import torch",
}


@pytest.fixture(scope="module")
def report_of_faults(tmp_path_factory):
    """What import-linter says of a library with imports that contracts forbid.

    It has the modules of ours.
    """
    folder = tmp_path_factory.mktemp("library")
    shutil.copy(ROOT / "pyproject.toml", folder)
    empty = dict.fromkeys((str(path.relative_to(LIBRARY)) for path in MODULES), "")
    for name, source in {**empty, **ALLOWED, **FORBIDDEN}.items():
        path = folder / "rib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return " ".join(linted(folder, ".").split())


@pytest.mark.parametrize(
    "fault",
    [
        "rib.base.files -> rib.analyses.radar",
        "rib.data.images -> rib.models.state",
        "rib.data.archives -> rib.evaluation.score",
        "rib.report.page -> rib.project",
        "not listed as layers: - rib.more",
        "No cycles are allowed in rib.",
        ".models -> .data",
        "No cycles are allowed in rib.data.",
        ".layouts -> .curl",
        ".prepare -> .images",
        "rib.statistics.cka -> torch",
        "rib.statistics.ri -> rib.data.images (l.1) rib.data.images -> timm",
        "rib.methods.soup -> rib.methods.base (l.1) rib.methods.base -> torch",
        "rib.jobs.script -> snakemake",
    ],
)
def test_contracts_are_broken_by_what_they_forbid(report_of_faults, fault):
    assert fault in report_of_faults


@pytest.mark.parametrize(
    "module",
    [
        *("rib.commands", "rib.jobs.gpu_lock", "rib.data.view", "rib.training.finetune"),
        "rib.records.snakemake_metadata",
    ],
)
def test_contracts_allow_what_the_library_needs(report_of_faults, module):
    assert module not in report_of_faults


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_imports_are_absolute():
    """Code digests don't follow relative ones."""
    assert [
        path for path in MODULES if any(getattr(node, "level", 0) for node in imports(path))
    ] == []


def test_of_safetensors_only_the_part_without_torch_is_used():
    """Where torch stays out; import-linter knows other libraries as a whole."""
    for path in (path for path in MODULES if path.relative_to(LIBRARY).parts[0] in TORCH_FREE):
        for node in imports(path):
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            assert all(
                name.split(".")[0] != "safetensors" or name == "safetensors.numpy" for name in names
            ), path
