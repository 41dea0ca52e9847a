"""Code depends downwards only, and the parts that must start fast don't touch torch."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "workflow/lib/rib"
LAYERS = [
    {"io", "plugins", "code", "classes", "catalog", "geometry", "runs", "grid", "job", "warm", "owner"}
    | {"provenance", "integrity", "track", "verify", "accept"},
    {"data", "models"},
    {"methods"},
    {"finetune", "pretrain", "resume", "merge", "passes", "evaluate", "features", "selection", "stir"},
    {"metrics", "analysis", "plan", "published"},
    {"figures", "report"},
    {"docs", "status"},
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
TORCH = {"torch", "torchvision", "timm", "open_clip", "safetensors", "peft"}
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def part(path: Path) -> str:
    """Name of the library's module or package that a file belongs to."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} uses a relative import, which the layering test can't follow"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_go_downwards(path):
    own = LAYER[part(path)]
    for name in imported(path):
        if name.startswith("rib."):
            other = name.split(".")[1]
            assert LAYER[other] <= own, f"{path.name} (L{own}) imports rib.{other} (L{LAYER[other]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_the_library_does_not_know_snakemake(path):
    assert "snakemake" not in roots(path)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if LAYER[part(path)] in (0, 4, 5)], ids=lambda path: path.stem
)
def test_torch_stays_out(path):
    numpy_only = {name for name in imported(path) if f"{name}.".startswith("safetensors.numpy.")}  # needs no torch
    assert not {name.split(".")[0] for name in imported(path) - numpy_only} & TORCH


def test_merges_are_written_without_torch():
    for path in (LIBRARY / "merge.py", LIBRARY / "methods/__init__.py", LIBRARY / "methods/wise_ft.py"):
        assert not roots(path) & TORCH


def test_scripts_are_thin():
    for path in (LIBRARY.parents[1] / "scripts").glob("[a-z]*.py"):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(lines) <= 25, f"{path.name} has {len(lines)} lines"


def test_the_snakefile_is_an_outline():
    assert len((LIBRARY.parents[2] / "Snakefile").read_text().splitlines()) < 60
