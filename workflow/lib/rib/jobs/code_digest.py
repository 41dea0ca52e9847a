"""Digest of the source code that a result depends on, so that a change re-runs only the jobs that use it.

Snakemake watches a rule's script but not the modules it imports. The settings of a job therefore contain a digest of
its script and of every project module that the script imports, directly or indirectly. The digest ignores comments,
docstrings, arguments of raised exceptions, log calls and the packages in `OUTSIDE`. From scripts/_run.py it includes
only the functions that the script imports.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from rib.base.plugins import LIBRARY

OUTSIDE = ("jobs", "records", "reporting")  # packages on which no result depends
SHARED = "_run"  # module whose functions the scripts share
Span = tuple[int, int, int, int]  # start row, start column, end row, end column; rows count from 1


@cache
def essence(path: Path, names: frozenset[str] | None = None) -> str:
    """Return the part of a source file that affects results; other files than Python are returned unchanged.

    Text is cut by position because the format of an AST dump differs between Python versions.

    Args:
        path: the file.
        names: functions to include, with everything that they use; None for the whole file.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return source
    lines = list(io.StringIO(source))  # str.splitlines would also split at form feeds, unlike ast
    tree = ast.parse(source)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    cuts = [(*token.start, *token.end) for token in tokens if token.type == tokenize.COMMENT]
    cuts += [_in_characters(lines, span) for span in _for_people(tree)]
    if names is not None:
        used = _used(tree, names)
        cuts += [_in_characters(lines, _span(node)) for node in tree.body if not _counts(node, used)]
    for row, column, end_row, end_column in _outermost(cuts):
        lines[row - 1 : end_row] = [lines[row - 1][:column] + lines[end_row - 1][end_column:]]
    return "\n".join(line.rstrip() for line in "".join(lines).splitlines() if line.strip())


def _for_people(tree: ast.Module) -> Iterator[Span]:
    """Docstrings, arguments of raised exceptions, and log lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            value = getattr(first, "value", None)
            if isinstance(first, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield _span(first)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield (*_span(node.exc.func)[2:], *_span(node.exc)[2:])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Attribute) and getattr(function.value, "id", None) == "log":
                yield _span(node)


def _span(node: ast.AST) -> Span:
    """Position of a node, including its decorators."""
    start = min([node, *getattr(node, "decorator_list", [])], key=lambda part: part.lineno)
    return start.lineno, 0 if start is not node else node.col_offset, node.end_lineno, node.end_col_offset


def _in_characters(lines: list[str], span: Span) -> Span:
    """Convert the columns of a span from UTF-8 bytes, which ast counts, to characters."""
    row, start, end_row, end = span
    return (
        *(row, len(lines[row - 1].encode()[:start].decode())),
        *(end_row, len(lines[end_row - 1].encode()[:end].decode())),
    )


def _outermost(cuts: Collection[Span]) -> list[Span]:
    """Cuts that are not contained in another cut, last first."""
    kept: list[Span] = []
    for cut in sorted(cuts, key=lambda cut: (cut[:2], [-place for place in cut[2:]])):
        if not kept or cut[:2] >= kept[-1][2:]:
            kept.append(cut)
    return kept[::-1]


def _used(tree: ast.Module, names: Collection[str]) -> set[str]:
    """Names of the given functions and of everything they use, directly or indirectly."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    used: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            if name in functions:
                todo += [part.id for part in ast.walk(functions[name]) if isinstance(part, ast.Name)]
    return used


def _counts(node: ast.stmt, used: Collection[str]) -> bool:
    """Whether a statement defines or imports one of the names."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name).split(".")[0] in used for alias in node.names)
    targets = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]
    return getattr(node, "name", None) in used or bool(used.intersection(targets) and isinstance(node, ast.Assign))


@cache
def imports(path: Path, names: frozenset[str] | None = None) -> frozenset[tuple[Path, frozenset[str] | None]]:
    """Project modules that a file imports, at any level, each with the functions to include (None: all)."""
    if path.suffix != ".py":
        return frozenset()
    found: set[tuple[Path, frozenset[str] | None]] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = tree.body if names is None else [node for node in tree.body if _counts(node, _used(tree, names))]
    for node in (part for statement in body for part in ast.walk(statement)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == SHARED:
            found.add((path.with_name(f"{SHARED}.py"), frozenset(alias.name for alias in node.names)))
            continue
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found.update((file, None) for module in modules for file in _module_files(module))
    return frozenset(found)


def _module_files(name: str) -> list[Path]:
    """Files that are executed on import of a dotted name; empty if results do not depend on it."""
    root, *parts = name.split(".")
    if root != LIBRARY.name or (parts and parts[0] in OUTSIDE):
        return []
    folders = [LIBRARY.joinpath(*parts[:end]) / "__init__.py" for end in range(len(parts) + 1)]
    return [file for file in [*folders, LIBRARY.joinpath(*parts).with_suffix(".py")] if file.is_file()]


def closure(*files: Path) -> list[tuple[Path, frozenset[str] | None]]:
    """The files and all project modules they import, directly or indirectly, each with the functions to include."""
    todo = [(Path(file).resolve(), None) for file in files]
    seen = set()
    while todo:
        unit = todo.pop()
        if unit not in seen:
            seen.add(unit)
            todo.extend(imports(*unit))
    return sorted(seen, key=lambda unit: (unit[0], sorted(unit[1] or ())))


@cache
def digest(*files: Path) -> str:
    """First 16 hex digits of the SHA-256 over the essences of the closure; independent of the project's location."""
    total = hashlib.sha256()
    for file, names in closure(*files):
        name = file.relative_to(LIBRARY).as_posix() if file.is_relative_to(LIBRARY) else file.name
        total.update(f"{name}\0{essence(file, names)}\0".encode())
    return total.hexdigest()[:16]
