"""Digest of the source code that a result depends on.

Snakemake watches a rule's script but not the modules that it imports. Settings of a job therefore
contain a digest of its script and of all project modules that it imports, directly or not, also
within functions: whole files, so that a value can't come from code outside the digest. A change
re-runs only jobs whose script imports the changed module.

Two things are left out. Text for people in a file: comments, docstrings, arguments of raised
exceptions, log calls and layout. And the modules in `OUTSIDE`.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY

# Modules that jobs need to run, though no value of them reaches an output, each with the reason.
# What they import counts only where a module of the digest imports it, too.
OUTSIDE = {
    "jobs/script.py": "starts a job: log, private folder, checks of inputs, record of the job",
    "jobs/messages.py": "says why a job has failed",
    "jobs/gpu_lock.py": "chooses one of a machine's GPUs; their kind is in manifests",
    "monitoring/watch.py": "shows a training while it runs, and leaves its random state alone",
    "records/environment.py": "describes the machine in the job's own record",
}


@dataclass(frozen=True)
class _PythonFile:
    """A Python file, read and parsed once for all digests.

    Attributes:
        fingerprint: SHA-256 (hex) of its code without text for people.
        imports: files of the project modules that it imports.
    """

    fingerprint: str
    imports: frozenset[Path]


@cache
def _parsed(path: Path) -> _PythonFile:
    """Fingerprint and imports of a file; a UserError if a user's file is no Python."""
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
        code = _as_text(_WithoutTextForPeople().visit(module))
    except SyntaxError as error:
        place = f"{path} line {error.lineno}"
        raise UserError(f"{place} is not valid Python ({error.msg}); correct it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read as Python ({error}); correct it.") from error
    return _PythonFile(_sha256(code), frozenset(_imported_files(path, module)))


class _WithoutTextForPeople(ast.NodeTransformer):
    """Removes docstrings, arguments of raised exceptions and log calls, which change no result."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        # Expressions contain no statements; skipping them saves most of the time.
        if isinstance(node, ast.expr):
            return node
        has_docstring = (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        )
        if has_docstring:
            del node.body[0]  # type: ignore[attr-defined]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        if isinstance(node, ast.Expr) and _is_log_call(node.value):
            return None
        return self.generic_visit(node)


def _is_log_call(node: ast.expr) -> bool:
    """Whether this calls a method of `log`, such as `log.info(...)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    logger = node.func.value
    return isinstance(logger, ast.Name) and logger.id == "log"


def _as_text(node: object) -> str:
    """Text of a syntax tree: `x` gives `Name(id='x',ctx=Load())`.

    `ast.dump` and `ast.unparse` write other text in other versions of Python, but people with
    different versions share results.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(node, ast.JoinedStr):
                # Python 3.12 ends some of these lists with an empty text.
                value = [part for part in node.values if not _is_empty_text(part)]
            # Newer versions have more fields, such as `type_params`, which are empty lists in code
            # of older ones. `kind` is the u of u"text", which means nothing.
            if value is not None and value != [] and name != "kind":
                fields.append(f"{name}={_as_text(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_as_text, node))}]"
    return ascii(node)  # `repr` escapes fewer characters in newer versions


def _is_empty_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def fingerprint(path: Path) -> str:
    """SHA-256 (hex) of a Python file's code without text for people, or of another file's bytes.

    Two files with the same fingerprint give the same results.

    Raises:
        UserError: a file of a user is not valid Python.
    """
    if path.suffix == ".py":
        return _parsed(path).fingerprint
    return hashlib.sha256(path.read_bytes()).hexdigest()


def imports(path: Path) -> frozenset[Path]:
    """Files of the project modules that a file imports, also within functions."""
    if path.suffix != ".py":
        return frozenset()
    return _parsed(path).imports


def _imported_files(path: Path, module: ast.Module) -> Iterator[Path]:
    """Files that the imports of a module (parsed from `path`) name, without those in OUTSIDE."""
    for statement in _statements_below(module):
        if isinstance(statement, ast.ImportFrom) and _is_beside(path, statement.module):
            yield path.with_name(f"{statement.module}.py")
            continue
        for name in _imported_modules(statement):
            for file in _module_files(name):
                if file.relative_to(LIBRARY).as_posix() not in OUTSIDE:
                    yield file


def _statements_below(block: ast.AST) -> Iterator[ast.AST]:
    """Yields all statements that are run, at any depth."""
    for child in ast.iter_child_nodes(block):
        # Expressions contain no statements, and `if TYPE_CHECKING:` is not run.
        if not isinstance(child, ast.expr) and not _is_for_type_checkers(child):
            yield child
            yield from _statements_below(child)


def _is_for_type_checkers(block: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`, whose imports change no result."""
    return (
        isinstance(block, ast.If)
        and isinstance(block.test, ast.Name)
        and block.test.id == "TYPE_CHECKING"
    )


def _is_beside(script: Path, module: str | None) -> bool:
    """Whether a script imports a module of its folder; only names such as `_inputs` may be one."""
    if module is None or not module.startswith("_"):
        return False
    return script.with_name(f"{module}.py").is_file()


def _imported_modules(statement: ast.AST) -> list[str]:
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
    if root != LIBRARY.name:
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
        total.update(f"{name}\0{fingerprint(file)}\0".encode())
    return total.hexdigest()[:16]
