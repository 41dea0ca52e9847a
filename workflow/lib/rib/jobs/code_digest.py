"""Digest of the source code that a result depends on.

Snakemake watches a rule's script but not the modules that it imports. Settings of a job therefore
contain a digest of its script and of every project module that it imports, directly or not: a
change re-runs only jobs that use the changed module. The digest ignores text for people: comments,
docstrings, arguments of raised exceptions, log calls, blank lines and trailing spaces; and the
packages in `OUTSIDE`.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY

MARK = "\0"  # replaces line breaks within a line of code; no Python source contains it
OUTSIDE = ("jobs", "records", "monitoring", "report")  # no result depends on these packages
# Start row, start column, end row, end column of a piece of source. Rows count from 1, columns are
# bytes from 0.
Span = tuple[int, int, int, int]


@dataclass(frozen=True)
class _ParsedFile:
    """A Python file, read and parsed once for all digests.

    Attributes:
        statements: all statements of the module, at any depth.
    """

    source: str
    module: ast.Module
    statements: list[ast.stmt]


@cache
def _parsed(path: Path) -> _ParsedFile:
    """The file's source and syntax tree; a UserError if a user's file is no Python."""
    try:
        source = path.read_text(encoding="utf-8")
        module = ast.parse(source)
    except SyntaxError as error:
        place = f"{path} line {error.lineno}"
        raise UserError(f"{place} is not valid Python ({error.msg}); correct it.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as Python ({error}); correct it.") from error
    return _ParsedFile(source, module, list(_statements_below(module)))


def _statements_below(module: ast.Module) -> Iterator[ast.stmt]:
    """Yields all statements that are run, to find imports and text for people."""
    blocks: list[ast.AST] = [module]
    while blocks:
        block = blocks.pop()
        # Expressions contain no statements; skipping them saves nine tenths of the tree.
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(block, field, []):
                # `if TYPE_CHECKING:` is not run.
                if _is_for_type_checkers(child):
                    continue
                if isinstance(child, ast.stmt):
                    yield child
                blocks.append(child)


def _is_for_type_checkers(block: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`, whose imports change no result."""
    return (
        isinstance(block, ast.If)
        and isinstance(block.test, ast.Name)
        and block.test.id == "TYPE_CHECKING"
    )


@cache
def essence(path: Path) -> str:
    """A Python file without comments, docstrings and other text for people; other files whole.

    Two files with the same essence give the same results.
    """
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8")
    file = _parsed(path)
    # str.splitlines would also split at form feeds.
    rows = file.source.encode().splitlines(keepends=True)
    comments, ends_of_lines = _comments_and_ends_of_lines(file.source, rows)
    for i, row in enumerate(rows):
        # In a string literal, blank lines and trailing spaces belong to the value.
        if i + 1 not in ends_of_lines:
            rows[i] = row.replace(b"\n", MARK.encode())
    # Cut text by position, because the format of an AST dump differs between Python versions.
    source = _without_spans(rows, [*comments, *_spans_for_people(file)]).decode()
    lines = [line.rstrip() for line in source.split("\n")]
    return "\n".join(line for line in lines if line).replace(MARK, "\n")


def _comments_and_ends_of_lines(source: str, rows: list[bytes]) -> tuple[list[Span], set[int]]:
    """Places of comments, and rows (from 1) that end a line of code.

    `x = 1 # one` gives ([(1, 6, 1, 11)], {1}).
    """
    # A break in a literal or after a backslash ends no line.
    comments = []
    ends_of_lines = set()
    # Splitting source into tokens takes most of a digest's time.
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, _ = token.start
        if token.type == tokenize.COMMENT:
            end = len(rows[row - 1].rstrip(b"\n"))
            comments.append((row, end - len(token.string.encode()), row, end))
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            ends_of_lines.add(row)
    return comments, ends_of_lines


def _without_spans(rows: list[bytes], spans: Iterable[Span]) -> bytes:
    """The source without some places: `abcdef` without columns 2 to 4 of row 1 is `abef`."""
    source = b"".join(rows)
    start_of_row = [0]  # bytes from the beginning of the source
    for row in rows:
        start_of_row.append(start_of_row[-1] + len(row))
    stretches = []
    for first_row, first_column, last_row, last_column in spans:
        start = start_of_row[first_row - 1] + first_column
        end = start_of_row[last_row - 1] + last_column
        stretches.append((start, end))
    remaining_source = b""
    end_of_cut = 0
    for start, end in sorted(stretches):
        # Spans may overlap: this adds nothing if one lies inside the one before.
        remaining_source += source[end_of_cut:start]
        end_of_cut = max(end_of_cut, end)
    return remaining_source + source[end_of_cut:]


def _spans_for_people(file: _ParsedFile) -> Iterator[Span]:
    """Places that change no result: docstrings, log calls, arguments of raised errors."""
    for node in (file.module, *file.statements):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            if has_docstring:
                yield _span_of(node.body[0])
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            # from the end of the exception's name to the end of the call
            _, _, last_row_of_name, last_column_of_name = _span_of(node.exc.func)
            _, _, last_row, last_column = _span_of(node.exc)
            yield last_row_of_name, last_column_of_name, last_row, last_column
        elif isinstance(node, ast.Expr) and _is_log_call(node.value):
            yield _span_of(node)


def _is_log_call(node: ast.expr) -> bool:
    """Whether this calls a method of `log`, such as `log.info(...)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    logger = node.func.value
    return isinstance(logger, ast.Name) and logger.id == "log"


def _span_of(node: ast.stmt | ast.expr) -> Span:
    """Place of a statement, with its decorators, or an expression: (1, 0, 1, 5) for `x = 1`."""
    first_row = node.lineno
    first_column = node.col_offset
    for decorator in getattr(node, "decorator_list", []):
        if decorator.lineno < first_row:
            first_row = decorator.lineno
            first_column = 0  # ast gives no position of the sign @
    # Parsed source always has them.
    assert node.end_lineno is not None and node.end_col_offset is not None
    return first_row, first_column, node.end_lineno, node.end_col_offset


@cache
def imports(path: Path) -> frozenset[Path]:
    """Files of the project modules that a file imports, also within functions."""
    if path.suffix != ".py":
        return frozenset()
    files: set[Path] = set()
    for statement in _parsed(path).statements:
        if isinstance(statement, ast.ImportFrom) and _is_beside(path, statement.module):
            files.add(path.with_name(f"{statement.module}.py"))
            continue
        for module in _imported_modules(statement):
            files.update(_module_files(module))
    return frozenset(files)


def _is_beside(script: Path, module: str | None) -> bool:
    """Whether a script imports a module of its folder; only names such as `_inputs` may be one."""
    if module is None or not module.startswith("_"):
        return False
    return script.with_name(f"{module}.py").is_file()


def _imported_modules(statement: ast.stmt) -> list[str]:
    """`from rib import data` gives ["rib", "rib.data"]: an imported name may be a module."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        assert statement.module is not None  # only a relative import can lack it
        return [
            statement.module,
            *(f"{statement.module}.{alias.name}" for alias in statement.names),
        ]
    return []


def _module_files(dotted_name: str) -> list[Path]:
    """`rib.data.view` gives rib/__init__.py, rib/data/__init__.py and rib/data/view.py."""
    root, *names = dotted_name.split(".")
    is_of_project = root == LIBRARY.name
    if not is_of_project or (names and names[0] in OUTSIDE):
        return []
    candidates = []
    for depth in range(len(names) + 1):
        candidates.append(LIBRARY.joinpath(*names[:depth]) / "__init__.py")
    candidates.append(LIBRARY.joinpath(*names).with_suffix(".py"))
    return [file for file in candidates if file.is_file()]


def closure(*files: Path) -> list[Path]:
    """The files and all project modules that they import, directly or not, sorted."""
    to_follow = [file.resolve() for file in files]
    followed: set[Path] = set()
    while to_follow:
        file = to_follow.pop()
        if file not in followed:
            followed.add(file)
            to_follow.extend(imports(file))
    return sorted(followed)


def script_of(stage: str, scripts: Path) -> Path:
    """Script of a stage: `find_drops` gives scripts/find_drops.py.

    Args:
        scripts: folder of the workflow's scripts.

    Raises:
        UserError: the script does not exist.
    """
    script = scripts / f"{stage}.py"
    if not script.is_file():
        raise UserError(
            f"a rule asks for digest('{stage}'), but {script} does not exist; add it, or give the "
            "name of a script in this folder without .py."
        )
    return script


@cache
def digest(*files: Path) -> str:
    """16 hex digits for the code of files and all they import, which a job's settings contain.

    They do not depend on the project's location.
    """
    total = hashlib.sha256()
    for file in closure(*files):
        name = file.name
        if file.is_relative_to(LIBRARY):
            name = file.relative_to(LIBRARY).as_posix()
        total.update(f"{name}\0{essence(file)}\0".encode())
    return total.hexdigest()[:16]
