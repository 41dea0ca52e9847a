"""Settings of methods and layouts: names and types, read from signatures without importing the modules."""

import ast
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.config.entries import EXTERNAL, FINETUNE, MERGES
from rib.config.ranges import RANGES, misfit
from rib.config.run import MERGE
from rib.config.schema import known_name, number, read_source
from rib.config.values import is_number, is_whole, show

BASE = LIBRARY / "methods/base.py"  # the class of all methods that train, not an algorithm


class Setting(NamedTuple):
    """A keyword-only argument of an algorithm or a layout."""

    annotation: str
    required: bool
    default: object

    def is_sweep(self, value: object) -> bool:
        """Whether a value is a list of values to sweep over; a setting that is itself a list is swept by lists."""
        return isinstance(value, list) and (
            not self.annotation.startswith("list") or isinstance(value[0], list)
        )


# Settings of every method that trains, in addition to its algorithm's: the recipe, and how long it trains.
RECIPE, LENGTH = "recipe", ("epochs", "steps")
TRAINING = {RECIPE: Setting("str", True, None), **dict.fromkeys(LENGTH, Setting("int", True, None))}


def check_settings(
    settings: Mapping,
    known: Mapping[str, Setting],
    where: str,
    complete: bool = True,
    sweeps: bool = True,
    later: Collection[str] = (),
) -> dict:
    """Settings checked against the keyword arguments of an algorithm or layout.

    Texts such as `1e-3`, which YAML 1.1 does not read as a number, are converted. Raises a UserError if a setting is
    unknown or missing, or a value does not have the annotated type.

    Args:
        complete: whether to require settings without defaults and to fill in defaults.
        sweeps: whether a list of values is allowed as a sweep.
        later: settings without defaults that may still be missing.
    """
    for key in settings:
        known_name(key, known, "setting", where, "allowed")
    given = dict(settings)
    for key in sorted(known.keys() - settings.keys()) if complete else ():
        if not known[key].required:
            given[key] = known[key].default
        elif key not in later:
            raise UserError(f"{where}: the setting '{key}' is missing; add it.")
    return {
        key: _checked(value, known[key], f"{where}: the setting '{key}'", sweeps)
        for key, value in given.items()
    }


def _checked(value: object, setting: Setting, where: str, sweeps: bool) -> object:
    """Check the value of a setting, or each value of a sweep."""
    if value == []:
        raise UserError(f"{where} is an empty list; give a value, or several for a sweep.")
    if sweeps and setting.is_sweep(value):
        return [_checked_value(item, setting.annotation, where) for item in value]
    return _checked_value(value, setting.annotation, where)


def _checked_value(value: object, annotation: str, where: str) -> object:
    """Check a value, converting text to a number if the annotation is numeric."""
    kind = annotation.partition("[")[0]
    if kind == "list":
        if not isinstance(value, list) or not value:
            raise UserError(f"{where} is {show(value)}; give a list.")
        return [
            _checked_value(item, annotation[len("list[") : -1] or "scalar", where) for item in value
        ]
    found = number(value) if isinstance(value, str) and kind in ("float", "int", *RANGES) else value
    wanted = (
        misfit(annotation, found)
        if kind == "Literal" or is_number(found)
        else RANGES.get(kind, ("",))[0]
    )
    types = {
        "float": ("a number", is_number(found)),
        "int": ("a whole number", is_whole(found)),
        **dict.fromkeys(("Literal", *RANGES), (wanted, not wanted)),
        "str": ("text, if necessary in quotes", isinstance(value, str)),
        "bool": ("true or false", isinstance(value, bool)),
        "scalar": ("text or a number", isinstance(value, str | bool) or is_number(value)),
        "dict": ("a value for each key", isinstance(value, dict) and _is_json(value)),
    }
    other = ("text, numbers, or lists and mappings of these", _is_json(value))
    expected, fits = types.get(kind, other)
    if not fits:
        raise UserError(f"{where} is {show(value)}; give {expected}.")
    return found


def _is_json(value: object) -> bool:
    """Whether a value survives a JSON round trip."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


@cache
def algorithm_settings(path: Path) -> tuple[str, Mapping[str, Setting]]:
    """Form of an algorithm, and its settings, read from the source, since importing it would import torch.

    The settings of a merge are the keyword-only arguments of its function, such as `recipe` (see rib.methods). Otherwise they
    are the fields of the class decorated with `@algorithm` and FineTuning's, or the keyword-only arguments of its
    constructor, whose `**common` are FineTuning's.
    """
    for node in _parsed(path).body:
        if isinstance(node, ast.FunctionDef) and node.name in MERGES:
            return node.name, _keywords(node, path)
        if isinstance(node, ast.ClassDef) and "algorithm" in map(ast.unparse, node.decorator_list):
            return EXTERNAL if path.stem == EXTERNAL else FINETUNE, _constructor_settings(
                node, path
            )
    raise UserError(
        f"{path} has neither a class with @algorithm nor a function {', '.join(MERGES)}; add one."
    )


def takes_fisher(path: Path) -> bool:
    """Whether an algorithm's `merge` is given the Fisher information of its parents, on its `fisher_images`."""
    form, settings = algorithm_settings(path)
    takes = form == MERGE and "fisher" in signature_of(path, MERGE)[0]
    if takes and "fisher_images" not in settings:
        raise UserError(
            f"{path}: its merge takes Fisher information; add a keyword 'fisher_images', the number of images."
        )
    return takes


@cache
def constant(path: Path, name: str, default: object) -> object:
    """A literal that a module assigns to a name."""
    found = {
        ast.unparse(node.targets[0]): node.value
        for node in _parsed(path).body
        if isinstance(node, ast.Assign)
    }
    return ast.literal_eval(found[name]) if name in found else default


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(read_source(path))
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"{path}{line} is not valid Python ({getattr(error, 'msg', error)}); correct it."
        ) from error


def _constructor_settings(node: ast.ClassDef, path: Path) -> Mapping[str, Setting]:
    init = next(
        (
            part
            for part in node.body
            if isinstance(part, ast.FunctionDef) and part.name == "__init__"
        ),
        None,
    )
    own = _keywords(init, path) if init else _fields(node, path)
    return own if init and init.args.kwarg is None else {**own, **_common_settings(), **own}


def _fields(node: ast.ClassDef, path: Path) -> Mapping[str, Setting]:
    parts = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    names = [ast.arg(part.target.id, part.annotation) for part in parts]
    return _settings(names, [part.value for part in parts], path)


@cache
def _common_settings() -> Mapping[str, Setting]:
    """Settings of FineTuning, shared by all methods that train weights."""
    classes = (node for node in _parsed(BASE).body if isinstance(node, ast.ClassDef))
    return _fields(next(node for node in classes if node.name == "FineTuning"), BASE)


@cache
def signature_of(path: Path, function: str) -> tuple[Mapping[str, Setting], Mapping[str, Setting]]:
    """Positional and keyword-only arguments of a module's function; raise a UserError if there is none of this name."""
    for node in _parsed(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            defaults = [None] * (len(node.args.args) - len(node.args.defaults)) + node.args.defaults
            return _settings(node.args.args, defaults, path), _keywords(node, path)
    raise UserError(f"{path} has no function '{function}'; add it.")


def _keywords(function: ast.FunctionDef, path: Path) -> Mapping[str, Setting]:
    return _settings(function.args.kwonlyargs, function.args.kw_defaults, path)


def _settings(
    arguments: list[ast.arg], defaults: list[ast.expr | None], path: Path
) -> Mapping[str, Setting]:
    found = {}
    for argument, default in zip(arguments, defaults, strict=True):
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        try:
            value = None if default is None else ast.literal_eval(default)
        except ValueError as error:
            raise UserError(
                f"{path} line {default.lineno}: the default of '{argument.arg}' is not a literal; write one, so that "
                "it can be recorded."
            ) from error
        found[argument.arg] = Setting(annotation, default is None, value)
    return found
