"""Mutants of the rules: an input is emptied, or a setting or a part of a code digest is dropped.

There is one edit at a time. The edits are found in the .smk files. In sections `input` and
`params`, and in the functions and constants that these name, they are

    the value of each named input, replaced by []; each unpacked group of inputs, left out
    each entry of settings, left out
    each file of a digest besides the stage's script, left out

A mutant is noticed if a test of TESTS fails. Nothing runs but these tests; they read the rules as
Snakemake does.
"""

import ast
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

RULES = Path("workflow/rules")
STAGE = Path("work/rule_mutation")
TESTS = ("tests/unit/test_rules.py", "tests/unit/test_wiring.py", "tests/unit/test_code_digest.py")
LIMIT = 600  # seconds that the tests may take
RULE = re.compile(r"^( *)(?:use )?(?:rule|checkpoint)\b.*:$")
SECTION = re.compile(r"^( +)(\w+):$")
DIRECTIVE = re.compile(r"^( *)(?:include|configfile|report|wildcard_constraints|localrules)\s*:")
# Functions that take files of a digest, and the number of arguments before these.
DIGESTS = {"digest": 1}
# `**{}` and `*[]` give nothing wherever an entry or an argument may stand.
NO_ENTRY, NO_ARGUMENT, EMPTY = "**{}", "*[]", "[]"
Definition = ast.FunctionDef | ast.Assign


@dataclass(frozen=True)
class Mutant:
    """A change of one place in a file of rules.

    Attributes:
        file: relative to the project.
        start, end: line from 1 and column from 0, in bytes of UTF-8.
        text: what is put there.
    """

    file: Path
    start: tuple[int, int]
    end: tuple[int, int]
    text: str

    def apply(self, source: str) -> str:
        """The source with the change."""
        return _cut(source, (1, 0), self.start) + self.text + _cut(source, self.end, None)

    def shown(self, source: str) -> str:
        """The place, what stood there on one line, and what is there instead."""
        before = " ".join(_cut(source, self.start, self.end).split())
        return f"{self.file}:{self.start[0]}\n  - {before}\n  + {self.text}"


def _cut(source: str, start: tuple[int, int], end: tuple[int, int] | None) -> str:
    """Source from a place to another, or to its end."""
    lines = source.encode().splitlines(keepends=True)
    first = sum(map(len, lines[: start[0] - 1])) + start[1]
    last = None if end is None else sum(map(len, lines[: end[0] - 1])) + end[1]
    return b"".join(lines)[first:last].decode()


class RuleFile:
    """A file of rules, taken apart: Python besides the rules, and sections of rules as calls."""

    def __init__(self, path: Path):
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.sections: list[tuple[str, ast.Call]] = []
        lines = self.source.splitlines()
        python = list(lines)
        end = 0  # of the last rule or directive
        for number, line in enumerate(lines):
            match = RULE.match(line) or DIRECTIVE.match(line)
            if match and number >= end:
                inside = _block(lines, number)
                end = inside.stop
                python[number:end] = [f"{match[1]}pass", *("" for _ in inside)]
                if RULE.match(line):
                    self.sections += self._sections_of(lines, inside)
        self.python = ast.parse("\n".join(python))

    def _sections_of(self, lines: list[str], inside: range) -> Iterator[tuple[str, ast.Call]]:
        """Sections `input` and `params` of a rule."""
        for number in inside:
            match = SECTION.match(lines[number])
            if match and match[2] in ("input", "params"):
                body = "\n".join(lines[place] for place in _block(lines, number))
                call = ast.parse(f"section(\n{body}\n)").body[0].value
                ast.increment_lineno(call, number)
                yield match[2], call

    def definitions(self) -> dict[str, Definition]:
        """Functions and constants by name."""
        named = {}
        for node in ast.walk(self.python):
            if isinstance(node, ast.FunctionDef):
                named[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                named[node.targets[0].id] = node
        return named


def _block(lines: list[str], header: int) -> range:
    """Numbers of the lines that belong to a header, which are those that are indented more."""
    depth = len(lines[header]) - len(lines[header].lstrip())
    end = header + 1
    while end < len(lines) and (
        not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth
    ):
        end += 1
    return range(header + 1, end)


def all_mutants(folder: Path = RULES) -> list[Mutant]:
    """Mutants of all files of rules, in the order of the files."""
    files = [RuleFile(path) for path in sorted(folder.rglob("*.smk"))]
    known = {name: definition for file in files for name, definition in file.definitions().items()}
    of_inputs = _reached(
        known, (call for file in files for kind, call in file.sections if kind == "input")
    )
    of_settings = _reached(
        known, (call for file in files for kind, call in file.sections if kind == "params")
    )
    mutants = []
    for file in files:
        for kind, call in file.sections:
            mutants += (
                _of_inputs(file, call) if kind == "input" else _of_settings(file, call, known)
            )
        for name, definition in file.definitions().items():
            if name in of_inputs:
                mutants += _of_input_definition(file, definition)
            elif name in of_settings:
                mutants += _of_settings(file, definition, known)
            mutants += _of_digests(file, definition)
        for _, call in file.sections:
            mutants += _of_digests(file, call)
    return list(dict.fromkeys(mutants))


def _reached(known: Mapping[str, Definition], calls: Iterable[ast.AST]) -> set[str]:
    """Names of definitions that calls use, directly or through other definitions."""
    reached, waiting = set(), list(calls)
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in known and node.id not in reached:
                reached.add(node.id)
                waiting.append(known[node.id])
    return reached


def _of_inputs(file: RuleFile, call: ast.Call) -> Iterator[Mutant]:
    """Each input of a rule emptied, each group of inputs left out."""
    for argument in call.args:
        yield _mutant(file, argument, argument, NO_ARGUMENT)
    for keyword in call.keywords:
        if keyword.arg is None:
            yield _mutant(file, keyword, keyword, NO_ENTRY)
        else:
            yield _mutant(file, keyword.value, keyword.value, EMPTY)


def _of_input_definition(file: RuleFile, definition: Definition) -> Iterator[Mutant]:
    """Each input that a function or constant names, emptied."""
    for node in ast.walk(definition):
        for key, value in _entries(node):
            if key is None:
                yield _mutant(file, value, value, "{}")
            elif not _is_empty(value):
                yield _mutant(file, value, value, EMPTY)


def _of_settings(
    file: RuleFile, node: ast.AST, known: Mapping[str, Definition]
) -> Iterator[Mutant]:
    """Each setting left out.

    Settings are those of dicts, of stages, and of calls of functions of rules.
    """
    for part in ast.walk(node):
        for key, value in _entries(part):
            if key is None:
                yield _mutant(file, value, value, "{}")
            else:
                yield _mutant(file, key, value, NO_ENTRY)
        if isinstance(part, ast.Call) and _takes_settings(part, known):
            for keyword in part.keywords:
                yield _mutant(file, keyword, keyword, NO_ENTRY)


def _takes_settings(call: ast.Call, known: Mapping[str, Definition]) -> bool:
    """Whether a call is one of a function of the rules, or builds the settings of a stage."""
    if not isinstance(call.func, ast.Name):
        return False
    return call.func.id in known or call.func.id.endswith("Settings")


def _of_digests(file: RuleFile, node: ast.AST) -> Iterator[Mutant]:
    """Each file of a digest left out, besides the script."""
    for part in ast.walk(node):
        if (
            isinstance(part, ast.Call)
            and isinstance(part.func, ast.Name)
            and part.func.id in DIGESTS
        ):
            for argument in part.args[DIGESTS[part.func.id] :]:
                yield _mutant(file, argument, argument, NO_ARGUMENT)


def _entries(node: ast.AST) -> list[tuple[ast.expr | None, ast.expr]]:
    """Entries of a dict whose keys are written there; of an unpacked dict the key is None."""
    if not isinstance(node, ast.Dict):
        return []
    written = (ast.Constant, ast.JoinedStr)
    return [
        (key, value)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, (*written, type(None)))
    ]


def _is_empty(value: ast.expr) -> bool:
    return isinstance(value, ast.List) and not value.elts


def _mutant(file: RuleFile, first: ast.AST, last: ast.AST, text: str) -> Mutant:
    return Mutant(
        file.path, (first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset), text
    )


def make_stage(paths: Iterable[Path]) -> None:
    """Copy the project's files to work/rule_mutation, where the mutants are tried."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in paths:
        (STAGE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, STAGE / path)


def is_noticed(mutant: Mutant | None) -> bool:
    """Whether a test fails for a mutant, in the stage; None for the rules as they are."""
    source = mutant and mutant.file.read_text(encoding="utf-8")
    if mutant:
        (STAGE / mutant.file).write_text(mutant.apply(source), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(command, cwd=STAGE, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return True
    finally:
        if mutant:
            (STAGE / mutant.file).write_text(source, encoding="utf-8")
    return done.returncode != 0


def try_all(sample: int | None, paths: Iterable[Path]) -> None:
    """Try the mutants, and tell which of them lived.

    Args:
        sample: how many are tried, always the same; None for all.
        paths: files of the project.

    Raises:
        SystemExit: the tests fail for the rules as they are.
    """
    mutants = all_mutants()
    if sample is not None:
        mutants = random.Random(0).sample(mutants, min(sample, len(mutants)))
    make_stage(paths)
    if is_noticed(None):
        sys.exit(f"{', '.join(TESTS)} fail without any change; mend that first.")
    lived = 0
    for mutant in mutants:
        if not is_noticed(mutant):
            lived += 1
            print(mutant.shown(mutant.file.read_text(encoding="utf-8")), flush=True)
    noticed = len(mutants) - lived
    percent = 100 * noticed / max(1, len(mutants))
    print(f"rules: {percent:.1f} % noticed, {noticed} of {len(mutants)} tried")
