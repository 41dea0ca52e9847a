"""Imports of the library that the contracts of import-linter (`make lint`) can't check."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "workflow/lib/rib"
TORCH_FREE = ("base", "config", "records", "jobs", "statistics", "figures", "analyses", "report")
MODULES = sorted(LIBRARY.rglob("*.py"))


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
