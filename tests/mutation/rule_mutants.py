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
from typing import NamedTuple

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
NO_ENTRY = "**{}"
NO_ARGUMENT = "*[]"
EMPTY = "[]"
Definition = ast.FunctionDef | ast.Assign


class Position(NamedTuple):
    """A position in a source: line from 1, and column from 0 in bytes of UTF-8."""

    line: int
    column: int


@dataclass(frozen=True)
class Mutant:
    """A change between two positions of a file of rules.

    Attributes:
        file: relative to the project.
        text: what is put there.
    """

    file: Path
    start: Position
    end: Position
    text: str

    def apply(self, source: str) -> str:
        """The source with the change."""
        before, _, after = _cut(source, self.start, self.end)
        return before + self.text + after

    def shown(self, source: str) -> str:
        """The line, what stood there on one line, and what is there instead."""
        _, replaced, _ = _cut(source, self.start, self.end)
        on_one_line = " ".join(replaced.split())
        return f"{self.file}:{self.start.line}\n  - {on_one_line}\n  + {self.text}"


def _cut(source: str, start: Position, end: Position) -> tuple[str, str, str]:
    """A source in three: what is before a position, up to another one, and after that."""
    encoded = source.encode()
    lines = encoded.splitlines(keepends=True)
    first = sum(map(len, lines[: start.line - 1])) + start.column
    last = sum(map(len, lines[: end.line - 1])) + end.column
    return encoded[:first].decode(), encoded[first:last].decode(), encoded[last:].decode()


class Section(NamedTuple):
    """The section `input` or `params` of a rule."""

    name: str
    call: ast.Call  # of a function that stands for the section


class RuleFile:
    """A file of rules, taken apart: Python besides the rules, and sections of rules as calls.

    Attributes:
        sections: of all rules.
        python: the file, with `pass` in place of rules and directives.
    """

    def __init__(self, path: Path):
        self.path = path
        self.sections: list[Section] = []
        lines = path.read_text(encoding="utf-8").splitlines()
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

    def _sections_of(self, lines: list[str], inside: range) -> Iterator[Section]:
        """Sections of a rule, which has the lines with these numbers."""
        for number in inside:
            match = SECTION.match(lines[number])
            if match and match[2] in ("input", "params"):
                body = "\n".join(lines[i] for i in _block(lines, number))
                call = ast.parse(f"section(\n{body}\n)").body[0].value
                ast.increment_lineno(call, number)
                yield Section(match[2], call)

    def definitions(self) -> dict[str, Definition]:
        """Functions and constants by name."""
        definitions = {}
        for node in ast.walk(self.python):
            if isinstance(node, ast.FunctionDef):
                definitions[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                definitions[node.targets[0].id] = node
        return definitions


def _block(lines: list[str], header: int) -> range:
    """Numbers of the lines that belong to a header, which are those that are indented more."""
    depth = _indentation(lines[header])
    end = header + 1
    while end < len(lines):
        is_blank = not lines[end].strip()
        if not is_blank and _indentation(lines[end]) <= depth:
            break
        end += 1
    return range(header + 1, end)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def all_mutants(folder: Path = RULES) -> list[Mutant]:
    """Mutants of all files of rules, in the order of the files."""
    files = [RuleFile(path) for path in sorted(folder.rglob("*.smk"))]
    definitions = {}
    for file in files:
        definitions |= file.definitions()
    sections = [section for file in files for section in file.sections]
    inputs = [section.call for section in sections if section.name == "input"]
    params = [section.call for section in sections if section.name == "params"]
    of_inputs = _reached(definitions, inputs)
    of_settings = _reached(definitions, params)
    mutants = []
    for file in files:
        for section in file.sections:
            if section.name == "input":
                mutants += _of_inputs(file, section.call)
            else:
                mutants += _of_settings(file, section.call, definitions)
        for name, definition in file.definitions().items():
            if name in of_inputs:
                mutants += _of_input_definition(file, definition)
            elif name in of_settings:
                mutants += _of_settings(file, definition, definitions)
            mutants += _of_digests(file, definition)
        for section in file.sections:
            mutants += _of_digests(file, section.call)
    return list(dict.fromkeys(mutants))


def _reached(definitions: Mapping[str, Definition], calls: Iterable[ast.AST]) -> set[str]:
    """Names of definitions that calls use, directly or through other definitions."""
    reached = set()
    waiting = list(calls)
    while waiting:
        for node in ast.walk(waiting.pop()):
            is_definition = isinstance(node, ast.Name) and node.id in definitions
            if is_definition and node.id not in reached:
                reached.add(node.id)
                waiting.append(definitions[node.id])
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
    file: RuleFile, node: ast.AST, definitions: Mapping[str, Definition]
) -> Iterator[Mutant]:
    """Each setting left out.

    Settings are those of dicts, of stages, and of calls of functions of rules.
    """
    for inner_node in ast.walk(node):
        for key, value in _entries(inner_node):
            if key is None:
                yield _mutant(file, value, value, "{}")
            else:
                yield _mutant(file, key, value, NO_ENTRY)
        if isinstance(inner_node, ast.Call) and _takes_settings(inner_node, definitions):
            for keyword in inner_node.keywords:
                yield _mutant(file, keyword, keyword, NO_ENTRY)


def _takes_settings(call: ast.Call, definitions: Mapping[str, Definition]) -> bool:
    """Whether a call is one of a function of the rules, or builds the settings of a stage."""
    if not isinstance(call.func, ast.Name):
        return False
    return call.func.id in definitions or call.func.id.endswith("Settings")


def _of_digests(file: RuleFile, node: ast.AST) -> Iterator[Mutant]:
    """Each file of a digest left out, besides the script."""
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        if call.func.id in DIGESTS:
            for argument in call.args[DIGESTS[call.func.id] :]:
                yield _mutant(file, argument, argument, NO_ARGUMENT)


def _entries(node: ast.AST) -> list[tuple[ast.expr | None, ast.expr]]:
    """Entries of a dict whose keys are written there; of an unpacked dict the key is None."""
    if not isinstance(node, ast.Dict):
        return []
    return [
        (key, value)
        for key, value in zip(node.keys, node.values, strict=True)
        if key is None or isinstance(key, (ast.Constant, ast.JoinedStr))
    ]


def _is_empty(value: ast.expr) -> bool:
    return isinstance(value, ast.List) and not value.elts


def _mutant(file: RuleFile, first: ast.AST, last: ast.AST, text: str) -> Mutant:
    """The mutant that has a text from the start of a node to the end of another."""
    start = Position(first.lineno, first.col_offset)
    end = Position(last.end_lineno, last.end_col_offset)
    return Mutant(file.path, start, end, text)


def make_stage(paths: Iterable[Path]) -> None:
    """Copy the project's files to work/rule_mutation, where the mutants are tried."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in paths:
        (STAGE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, STAGE / path)


def is_noticed(mutant: Mutant) -> bool:
    """Whether a test fails for a mutant, in the stage."""
    source = mutant.file.read_text(encoding="utf-8")
    (STAGE / mutant.file).write_text(mutant.apply(source), encoding="utf-8")
    try:
        return tests_fail()
    finally:
        (STAGE / mutant.file).write_text(source, encoding="utf-8")


def tests_fail() -> bool:
    """Whether a test fails in the stage, or they take too long."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *TESTS]
    try:
        completed = subprocess.run(command, cwd=STAGE, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return True
    return completed.returncode != 0


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
    if tests_fail():
        sys.exit(f"{', '.join(TESTS)} fail without any change; mend that first.")
    lived = 0
    for mutant in mutants:
        if not is_noticed(mutant):
            lived += 1
            print(mutant.shown(mutant.file.read_text(encoding="utf-8")), flush=True)
    noticed = len(mutants) - lived
    percent = 100 * noticed / max(1, len(mutants))
    print(f"rules: {percent:.1f} % noticed, {noticed} of {len(mutants)} tried")
