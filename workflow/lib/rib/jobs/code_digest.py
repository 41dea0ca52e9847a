"""Digest of the source code that a result depends on, so that a change re-runs only the jobs that use it.

Snakemake watches a rule's script but not the modules it imports. The settings of a job therefore contain a digest of
its script and of every project module that the script imports, directly or indirectly. The digest ignores comments,
docstrings, arguments of raised exceptions, log calls and the packages in `OUTSIDE`. From scripts/_run.py it includes
only the functions that the script imports. Other modules beside a script that begin with `_` are included whole.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Collection, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path

from rib.base.plugins import LIBRARY

OUTSIDE = ("jobs", "records", "monitoring", "reporting")  # packages on which no result depends
SHARED = "_run"  # module whose functions the scripts share
Span = tuple[
    int, int, int, int
]  # start row, start column, end row, end column; rows count from 1, columns are bytes


@cache
def essence(path: Path, names: frozenset[str] | None = None) -> str:
    """The part of a Python file that affects results: all, or what the named functions use. Other files are not cut."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return source
    text, tree = source.encode(), ast.parse(source)
    lines = text.splitlines(
        keepends=True
    )  # str.splitlines would also split at form feeds, unlike ast
    # Text is cut by position because the format of an AST dump differs between Python versions.
    spans = [*_comments(source, lines), *_for_people(tree)]
    needed = set(_needed(tree, names))
    spans += [_span(node) for node in tree.body if node not in needed]
    starts = [0, *accumulate(map(len, lines))]
    kept, end = b"", 0
    for start, stop in sorted(
        (starts[row - 1] + left, starts[last - 1] + right) for row, left, last, right in spans
    ):
        kept += text[end:start]  # nothing if the span is inside of the one before
        end = max(end, stop)
    return "\n".join(
        line.rstrip() for line in (kept + text[end:]).decode().splitlines() if line.strip()
    )


def _comments(source: str, lines: list[bytes]) -> Iterator[Span]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:  # up to the end of its line
            row = token.start[0]
            end = len(lines[row - 1].rstrip(b"\n"))
            yield row, end - len(token.string.encode()), row, end


def _for_people(tree: ast.Module) -> Iterator[Span]:
    """Docstrings, arguments of raised exceptions, and log lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                yield _span(node.body[0])
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield (*_span(node.exc.func)[2:], *_span(node.exc)[2:])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Attribute) and getattr(function.value, "id", None) == "log":
                yield _span(node)


def _span(node: ast.AST) -> Span:
    """Position of a node, including its decorators."""
    start = min([node, *getattr(node, "decorator_list", [])], key=lambda part: part.lineno)
    return (
        start.lineno,
        0 if start is not node else node.col_offset,
        node.end_lineno,
        node.end_col_offset,
    )


def _needed(tree: ast.Module, names: Collection[str] | None) -> list[ast.stmt]:
    """Statements that define or import the given functions and everything they use, directly or indirectly."""
    if names is None:
        return tree.body
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    used, todo = set(), list(names)
    while todo:
        if (name := todo.pop()) not in used:
            used.add(name)
            if name in functions:
                todo += [
                    part.id for part in ast.walk(functions[name]) if isinstance(part, ast.Name)
                ]
    return [node for node in tree.body if used & _bound(node)]


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement imports, assigns or defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign):
        return {
            part.id
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
        }
    return {getattr(node, "name", "")}


@cache
def imports(
    path: Path, names: frozenset[str] | None = None
) -> frozenset[tuple[Path, frozenset[str] | None]]:
    """Project modules that a file imports, at any level, each with the functions to include (None: all)."""
    if path.suffix != ".py":
        return frozenset()
    found: set[tuple[Path, frozenset[str] | None]] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in (part for statement in _needed(tree, names) for part in ast.walk(statement)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == SHARED:
            found.add(
                (path.with_name(f"{SHARED}.py"), frozenset(alias.name for alias in node.names))
            )
        elif isinstance(node, ast.ImportFrom) and _is_beside(path, node.module):
            found.add((path.with_name(f"{node.module}.py"), None))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found.update((file, None) for module in modules for file in _module_files(module))
    return frozenset(found)


def _is_beside(script: Path, module: str | None) -> bool:
    """Whether a module is one that scripts in the same folder share, such as `_inputs`."""
    if module is None or not module.startswith("_"):
        return False
    return script.with_name(f"{module}.py").is_file()


def _module_files(name: str) -> list[Path]:
    """Files that are executed on import of a dotted name; empty if results do not depend on it."""
    root, *parts = name.split(".")
    if root != LIBRARY.name or (parts and parts[0] in OUTSIDE):
        return []
    folders = [LIBRARY.joinpath(*parts[:end]) / "__init__.py" for end in range(len(parts) + 1)]
    return [
        file for file in [*folders, LIBRARY.joinpath(*parts).with_suffix(".py")] if file.is_file()
    ]


def closure(*files: Path) -> list[tuple[Path, frozenset[str] | None]]:
    """The files and all project modules they import, directly or indirectly, each with the functions to include."""
    todo, seen = [(file.resolve(), None) for file in files], set()
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
