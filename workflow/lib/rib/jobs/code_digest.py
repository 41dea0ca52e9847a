"""Digest of the source code that a result depends on.

Snakemake watches a rule's script but not the modules it imports. The settings of a job therefore
contain a digest of its script and of every project module that the script imports, directly or
indirectly, so that a change re-runs only the jobs that use it. Modules beside a script that begin
with `_` are project modules too. The digest ignores comments, docstrings, arguments of raised
exceptions, log calls, the packages in `OUTSIDE`, and blank lines and spaces at the end of a line,
unless they are in a literal.
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

MARK = "\0"  # in place of a line break within a line of code; no Python source contains it
OUTSIDE = ("jobs", "records", "monitoring", "report")  # packages on which no result depends
# A stretch of source: start row, start column, end row, end column. Rows count from 1, columns are
# bytes from 0.
Span = tuple[int, int, int, int]


@dataclass(frozen=True)
class _ParsedFile:
    """A Python file, which is read and parsed once for all digests.

    Attributes:
        source: its text.
        module: its syntax tree.
        statements: those of the module at any depth.
    """

    source: str
    module: ast.Module
    statements: list[ast.stmt]


@cache
def _parsed(path: Path) -> _ParsedFile:
    """A file, read and parsed; a UserError if it is no Python, which a user's may be."""
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
    """All statements of a module at any depth.

    Expressions are not searched, since they contain no statements. They are nine tenths of a tree,
    and each call of Snakemake reads all files.
    """
    blocks: list[ast.AST] = [module]
    while blocks:
        block = blocks.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(block, field, []):
                if _is_for_type_checkers(child):
                    continue
                if isinstance(child, ast.stmt):
                    yield child
                blocks.append(child)


def _is_for_type_checkers(block: ast.AST) -> bool:
    """Whether a block is `if TYPE_CHECKING:`, which is not run."""
    return (
        isinstance(block, ast.If)
        and isinstance(block.test, ast.Name)
        and block.test.id == "TYPE_CHECKING"
    )


@cache
def essence(path: Path) -> str:
    """The part of a Python file that affects results; other files are not cut."""
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8")
    file = _parsed(path)
    rows = file.source.encode().splitlines(keepends=True)  # of str they would end at form feeds
    comments, ends_of_lines = _comments_and_ends_of_lines(file.source, rows)
    for i, row in enumerate(rows):
        # In a literal, blank lines and spaces before a line break are part of its value.
        if i + 1 not in ends_of_lines:
            rows[i] = row.replace(b"\n", MARK.encode())
    # Text is cut by position because the format of an AST dump differs between Python versions.
    source = _without_spans(rows, [*comments, *_spans_for_people(file)]).decode()
    lines = [line.rstrip() for line in source.split("\n")]
    return "\n".join(line for line in lines if line).replace(MARK, "\n")


def _comments_and_ends_of_lines(source: str, rows: list[bytes]) -> tuple[list[Span], set[int]]:
    """Spans of comments, and rows whose line break is in no literal and after no backslash.

    To split source into tokens takes most of the time of a digest.
    """
    comments = []
    ends_of_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, _ = token.start
        if token.type == tokenize.COMMENT:
            end = len(rows[row - 1].rstrip(b"\n"))
            comments.append((row, end - len(token.string.encode()), row, end))
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            ends_of_lines.add(row)
    return comments, ends_of_lines


def _without_spans(rows: list[bytes], spans: Iterable[Span]) -> bytes:
    """Source without some stretches, which may overlap.

    Without the stretch from column 2 to 4 of row 1, `abcdef` is `abef`.
    """
    source = b"".join(rows)
    start_of_row = [0]  # in bytes from the beginning of the source
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
        # Nothing is added if the stretch is inside of the one before.
        remaining_source += source[end_of_cut:start]
        end_of_cut = max(end_of_cut, end)
    return remaining_source + source[end_of_cut:]


def _spans_for_people(file: _ParsedFile) -> Iterator[Span]:
    """What is only for people in a module: docstrings, messages of exceptions, and log lines.

    Of `raise UserError(f"{path} is missing")`, it is the argument with its brackets.
    """
    for node in (file.module, *file.statements):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            if has_docstring:
                yield _span_of(node.body[0])
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            # From the end of the exception's name to the end of the call.
            _, _, last_row_of_name, last_column_of_name = _span_of(node.exc.func)
            _, _, last_row, last_column = _span_of(node.exc)
            yield last_row_of_name, last_column_of_name, last_row, last_column
        elif isinstance(node, ast.Expr) and _is_log_call(node.value):
            yield _span_of(node)


def _is_log_call(node: ast.expr) -> bool:
    """Whether an expression calls a method of `log`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    logger = node.func.value
    return isinstance(logger, ast.Name) and logger.id == "log"


def _span_of(node: ast.stmt | ast.expr) -> Span:
    """Position of a node, including its decorators: where the cut begins and ends."""
    first_row = node.lineno
    first_column = node.col_offset
    for decorator in getattr(node, "decorator_list", []):
        if decorator.lineno < first_row:
            first_row = decorator.lineno
            first_column = 0  # the sign @ is no part of the decorator
    assert node.end_lineno is not None and node.end_col_offset is not None  # of parsed source
    return first_row, first_column, node.end_lineno, node.end_col_offset


@cache
def imports(path: Path) -> frozenset[Path]:
    """Files of project modules that a file imports, at any level."""
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
    """Whether a module is one that scripts in the same folder share, such as `_inputs`."""
    if module is None or not module.startswith("_"):
        return False
    return script.with_name(f"{module}.py").is_file()


def _imported_modules(statement: ast.stmt) -> list[str]:
    """Dotted names of modules that an import statement may import; empty for other statements.

    What is imported from a module may be a module itself.
    """
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        assert statement.module is not None  # only a relative import may lack it
        return [
            statement.module,
            *(f"{statement.module}.{alias.name}" for alias in statement.names),
        ]
    return []


def _module_files(dotted_name: str) -> list[Path]:
    """Files that are executed on import of a module; empty if results do not depend on it.

    Of `rib.data.view` they are rib/__init__.py, rib/data/__init__.py and rib/data/view.py.
    """
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
    """Files and those of all project modules that they import, directly or indirectly, sorted."""
    to_follow = [file.resolve() for file in files]
    followed: set[Path] = set()
    while to_follow:
        file = to_follow.pop()
        if file not in followed:
            followed.add(file)
            to_follow.extend(imports(file))
    return sorted(followed)


def script_of(stage: str, scripts: Path) -> Path:
    """The script of a stage, such as scripts/find_drops.py of `find_drops`.

    Args:
        scripts: the folder of the workflow's scripts.

    Raises:
        UserError: there is no such script.
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
    """First 16 hex digits of the SHA-256 over the essences of the closure of files.

    It does not depend on the project's location.
    """
    total = hashlib.sha256()
    for file in closure(*files):
        name = file.name
        if file.is_relative_to(LIBRARY):
            name = file.relative_to(LIBRARY).as_posix()
        total.update(f"{name}\0{essence(file)}\0".encode())
    return total.hexdigest()[:16]
