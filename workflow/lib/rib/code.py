"""Digest of the source that a job runs, so that a change re-runs what uses it and nothing else.

Snakemake watches a rule's script but not the modules it imports. A job therefore carries in its
parameters the digest of its script and of every project module reachable from it by import statements.
"""

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent

# They start jobs, move finished bytes and write records; no result depends on them.
PLUMBING = frozenset({LIBRARY / "job.py", LIBRARY / "warm.py", LIBRARY / "integrity.py"})


@cache
def essence(path: Path) -> str:
    """Source text without comments, docstrings and blank lines; other files than Python as they are.

    Cut out by position rather than through an AST dump, whose form differs between Python versions.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return source
    lines = list(io.StringIO(source))  # which ends lines where ast does, not at a form feed too
    cuts = [(*token.start, *token.end) for token in _tokens(source) if token.type == tokenize.COMMENT]
    cuts += [_span(lines, node) for node in _docstrings(ast.parse(source))]
    for row, column, end_row, end_column in sorted(cuts, reverse=True):
        lines[row - 1 : end_row] = [lines[row - 1][:column] + lines[end_row - 1][end_column:]]
    return "\n".join(line.rstrip() for line in "".join(lines).splitlines() if line.strip())


def _tokens(source: str):
    return tokenize.generate_tokens(io.StringIO(source).readline)


def _docstrings(tree: ast.Module):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first


def _span(lines: list[str], node: ast.Expr) -> tuple[int, int, int, int]:
    # ast counts columns in UTF-8 bytes, the cut below in characters.
    start = len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
    end = len(lines[node.end_lineno - 1].encode()[: node.end_col_offset].decode())
    return node.lineno, start, node.end_lineno, end


@cache
def imports(path: Path) -> frozenset[Path]:
    """Project modules that a source file imports, at its top or inside a function."""
    if path.suffix != ".py":
        return frozenset()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found.update(file for name in names for file in _module_files(name))
    return frozenset(found - PLUMBING)


def _module_files(name: str) -> list[Path]:
    """Files that importing a dotted name runs: the module's and its packages'. Empty if it isn't ours."""
    parts = name.split(".")
    if parts[0] != LIBRARY.name:
        return []
    folders = [LIBRARY.joinpath(*parts[1:end]) / "__init__.py" for end in range(1, len(parts) + 1)]
    return [file for file in [*folders, LIBRARY.joinpath(*parts[1:]).with_suffix(".py")] if file.is_file()]


def closure(*files: Path) -> list[Path]:
    """The given files and every project module that they import, directly or not, sorted by path."""
    todo, seen = [Path(file).resolve() for file in files], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(imports(file))
    return sorted(seen)


@cache
def digest(*files: Path) -> str:
    """First 16 hex digits of the SHA-256 over the closure's essences; independent of where the project lies."""
    total = hashlib.sha256()
    for file in closure(*files):
        name = file.relative_to(LIBRARY).as_posix() if file.is_relative_to(LIBRARY) else file.name
        total.update(f"{name}\0{essence(file)}\0".encode())
    return total.hexdigest()[:16]
