"""Settings of methods and layouts: names and types, read from signatures.

The modules are parsed but not imported, since importing them would import torch.
"""

import ast
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rib.base.errors import UserError
from rib.base.plugins import LIBRARY
from rib.config.forms import EXTERNAL, FINETUNE, MERGES
from rib.config.ranges import RANGES, misfit
from rib.config.run import MERGE
from rib.config.schema import number, read_source
from rib.config.values import is_number, is_whole, known_name, show

BASE = LIBRARY / "methods/base.py"  # the class of all methods that train, not an algorithm


class Setting(NamedTuple):
    """A keyword-only argument of an algorithm or a layout."""

    annotation: str
    required: bool
    default: object

    def is_sweep(self, entry: object) -> bool:
        """Whether an entry lists several values of the setting, over which it is swept.

        A setting that is itself a list is swept by a list of lists.
        """
        if not isinstance(entry, list):
            return False
        if self.annotation.startswith("list"):
            return isinstance(entry[0], list)
        return True


# Settings of every method that trains, in addition to its algorithm's: its schedule, which users
# call recipe, and how long it trains.
SCHEDULE = "recipe"
LENGTH = ("epochs", "steps")
OR_NONE = " | None"  # end of the annotation of a setting that may be left out
RATE = "lr"  # the only setting that may be a mapping of models or their groups to numbers
OTHER = "other"  # key of such a mapping, with the rate of all models that it does not name
TRAINING = {
    SCHEDULE: Setting("str", True, None),
    "epochs": Setting("int", True, None),
    "steps": Setting("int", True, None),
}


def check_settings(
    settings: Mapping[str, Any],
    known_settings: Mapping[str, Setting],
    where: str,
    complete: bool = True,
    sweeps: bool = True,
    may_lack: Collection[str] = (),
) -> dict[str, Any]:
    """Settings checked against the keyword arguments of an algorithm or layout.

    Texts such as `1e-3`, which YAML 1.1 does not read as a number, are converted. The learning rate
    may be a mapping, of which only the numbers are checked here.

    Args:
        known_settings: the keyword arguments, by name.
        where: file and entry, for messages.
        complete: whether to require settings without defaults and to fill in defaults.
        sweeps: whether a list of values is allowed as a sweep.
        may_lack: settings without defaults that may still be missing.

    Raises:
        UserError: A setting is unknown or missing, or does not have the annotated type.
    """
    for name in settings:
        known_name(name, known_settings, "setting", where, "allowed")
    to_check = dict(settings)
    if complete:
        missing_names = known_settings.keys() - settings.keys()
        for name in sorted(missing_names):
            if not known_settings[name].required:
                to_check[name] = known_settings[name].default
            elif name not in may_lack:
                raise UserError(f"{where}: the setting '{name}' is missing; add it.")
    checked_settings: dict[str, Any] = {}
    for name, entry in to_check.items():
        setting = known_settings[name]
        subject = f"{where}: the setting '{name}'"
        if name == RATE and isinstance(entry, dict):
            checked_settings[name] = _checked_rates(entry, setting, subject)
        else:
            checked_settings[name] = _checked_entry(entry, setting, subject, sweeps)
    return checked_settings


def _checked_rates(
    rates: Mapping[object, object], setting: Setting, subject: str
) -> dict[object, object]:
    """Learning rates by model or group of models, checked; texts such as `1e-3` become numbers.

    Whether the models exist is checked elsewhere.

    Args:
        setting: the learning rate, with the numbers that it allows.
        subject: file, entry and setting, with which messages begin.

    Raises:
        UserError: there are none, or one is no number in the range.
    """
    if not rates:
        raise UserError(f"{subject} is an empty mapping; give a number for each model or group.")
    checked_rates = {}
    for model_or_group, rate in rates.items():
        subject_of_rate = f"{subject} of {show(model_or_group)}"
        checked_rates[model_or_group] = _checked_value(rate, setting.annotation, subject_of_rate)
    return checked_rates


def _checked_entry(entry: object, setting: Setting, subject: str, sweeps: bool) -> object:
    """Check what a user wrote for a setting: one value or, if allowed, each value of a sweep.

    Args:
        entry: what the user wrote; a list of values if the setting is swept.
        setting: what the setting may be.
        subject: file, entry and setting, with which messages begin.
        sweeps: whether a sweep is allowed.
    """
    if entry == []:
        raise UserError(f"{subject} is an empty list; give a value, or several for a sweep.")
    if sweeps and isinstance(entry, list) and setting.is_sweep(entry):
        return [_checked_value(value, setting.annotation, subject) for value in entry]
    return _checked_value(entry, setting.annotation, subject)


def _checked_value(value: object, annotation: str, subject: str) -> object:
    """A value of a setting, checked; text such as `1e-3` becomes a number where one is expected.

    Args:
        annotation: type of the setting in Python, such as `float` or `list[int]`, or the name of a
            range, such as `Positive`. It may end with ` | None` for a setting that may be left out.
        subject: file, entry and setting, with which messages begin.

    Raises:
        UserError: the value is of another type, or not in the range.
    """
    if annotation.endswith(OR_NONE):
        if value is None:
            return None
        annotation = annotation.removesuffix(OR_NONE)
    type_name = _type_name(annotation)
    if type_name == "list":
        return _checked_list(value, annotation, subject)
    converted = value
    if isinstance(value, str) and type_name in ("float", "int", *RANGES):
        converted = number(value)  # None for other texts, which is refused below
    expectation = _unmet_expectation(converted, annotation)
    if expectation is not None:
        raise UserError(f"{subject} is {show(value)}; give {expectation}.")
    return converted


def _checked_list(value: object, annotation: str, subject: str) -> list[object]:
    """A value of a setting that must be a list, checked with each element of it.

    Args:
        annotation: `list[int]` for integers; `list` for texts and numbers.
        subject: file, entry and setting, with which messages begin.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{subject} is {show(value)}; give a list.")
    annotation_of_element = "scalar"  # a text or a number
    if annotation.startswith("list["):
        annotation_of_element = annotation.removeprefix("list[").removesuffix("]")
    return [_checked_value(element, annotation_of_element, subject) for element in value]


def _type_name(annotation: str) -> str:
    """The name of an annotated type without its parameters: `list` of `list[int]`."""
    return annotation.partition("[")[0]


def _unmet_expectation(value: object, annotation: str) -> str | None:
    """What to give instead of a value, such as `a whole number`; None if it fits its annotation.

    Args:
        annotation: type of a setting in Python, such as `int` or `Literal["all", "class"]`, or the
            name of a range, such as `Positive`.
    """
    type_name = _type_name(annotation)
    if type_name == "Literal":
        return misfit(annotation, value)
    if type_name in RANGES:
        if is_number(value):
            return misfit(annotation, value)
        return RANGES[type_name].description
    value_type = TYPES.get(type_name, ANY_JSON)
    if value_type.includes(value):
        return None
    return value_type.description


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool) or is_number(value)


def _is_json(value: object) -> bool:
    """Whether a value survives a JSON round trip."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _is_json_mapping(value: object) -> bool:
    return isinstance(value, dict) and _is_json(value)


@dataclass(frozen=True)
class ValueType:
    """The values that a type of settings includes."""

    description: str  # for messages
    includes: Callable[[object], bool]


# Types by the name that annotations have for them; `scalar` is that of elements of a bare `list`.
TYPES = {
    "float": ValueType("a number", is_number),
    "int": ValueType("a whole number", is_whole),
    "str": ValueType("text, if necessary in quotes", _is_text),
    "bool": ValueType("true or false", _is_boolean),
    "scalar": ValueType("text or a number", _is_scalar),
    "dict": ValueType("a value for each key", _is_json_mapping),
}
# Of all other annotations, and of arguments without one.
ANY_JSON = ValueType("text, numbers, or lists and mappings of these", _is_json)


@cache
def algorithm_settings(path: Path) -> tuple[str, Mapping[str, Setting]]:
    """Form of an algorithm, and its settings, read from its source.

    The settings of a merge are the keyword-only arguments of its function, such as `weights` (see
    rib.methods). Otherwise they are the fields of the class decorated with `@algorithm` and
    FineTuning's, or the keyword-only arguments of its constructor, whose `**common` are
    FineTuning's.

    Raises:
        UserError: The file is not valid Python, or has neither such a class nor such a function.
    """
    for node in _parsed(path).body:
        if isinstance(node, ast.FunctionDef) and node.name in MERGES:
            return node.name, _keyword_settings(node, path)
        if isinstance(node, ast.ClassDef) and _is_decorated_as_algorithm(node):
            form = EXTERNAL if path.stem == EXTERNAL else FINETUNE
            return form, _constructor_settings(node, path)
    raise UserError(
        f"{path} has neither a class with @algorithm nor a function {', '.join(MERGES)}; add one."
    )


def _is_decorated_as_algorithm(node: ast.ClassDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return "algorithm" in decorators


def takes_fisher(path: Path) -> bool:
    """Whether an algorithm's function `merge` takes the Fisher information of its parents.

    Raises:
        UserError: It does, but has no setting `fisher_images`, the number of images for it.
    """
    form, settings = algorithm_settings(path)
    if form != MERGE:
        return False
    positional_arguments, _ = signature_of(path, MERGE)
    if "fisher" not in positional_arguments:
        return False
    if "fisher_images" not in settings:
        raise UserError(
            f"{path}: its merge takes Fisher information; add a keyword 'fisher_images', the "
            "number of images."
        )
    return True


@cache
def constant(path: Path, name: str, default: object) -> Any:
    """The value that a module's source assigns to a name, such as 1000 for `MOST_IMAGES = 1000`.

    The module is parsed, but not imported. The default is returned if it has no such assignment.
    """
    assigned = default
    for node in _parsed(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assigned = ast.literal_eval(node.value)
    return assigned


def _parsed(path: Path) -> ast.Module:
    """Syntax tree of a module; raises a UserError if it is not valid Python."""
    try:
        return ast.parse(read_source(path))
    except SyntaxError as error:
        raise UserError(
            f"{path} line {error.lineno} is not valid Python ({error.msg}); correct it."
        ) from error
    except ValueError as error:  # a null character
        raise UserError(f"{path} is not valid Python ({error}); correct it.") from error


def _constructor_settings(node: ast.ClassDef, path: Path) -> Mapping[str, Setting]:
    """Settings with which an algorithm's class is built, its own before those of FineTuning.

    They are the keyword-only arguments of its constructor or, without one, the fields of the class.

    Args:
        node: the class in the module's syntax tree.
        path: the module, for messages.
    """
    constructor = _constructor_of(node)
    if constructor is None:
        settings = dict(_field_settings(node, path))
        takes_common = True
    else:
        settings = dict(_keyword_settings(constructor, path))
        takes_common = constructor.args.kwarg is not None  # `**common`
    if takes_common:
        for name, setting in _common_settings().items():
            settings.setdefault(name, setting)
    return settings


def _constructor_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    """The method `__init__` of a class in a syntax tree; None if it defines none."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement
    return None


def _field_settings(node: ast.ClassDef, path: Path) -> Mapping[str, Setting]:
    """Settings that are fields of a dataclass, such as `alpha: float = 0.5`.

    Args:
        node: the class in the module's syntax tree.
        path: the module, for messages.
    """
    arguments = []
    defaults = []
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            arguments.append(ast.arg(statement.target.id, statement.annotation))
            defaults.append(statement.value)
    return _settings_of_arguments(arguments, defaults, path)


@cache
def _common_settings() -> Mapping[str, Setting]:
    """Settings of FineTuning, shared by all methods that train weights."""
    for node in _parsed(BASE).body:
        if isinstance(node, ast.ClassDef) and node.name == "FineTuning":
            return _field_settings(node, BASE)
    raise RuntimeError(f"{BASE} has no class FineTuning")


@cache
def signature_of(path: Path, function: str) -> tuple[Mapping[str, Setting], Mapping[str, Setting]]:
    """Positional and keyword-only arguments of a module's function.

    Raises:
        UserError: The module has no function of this name.
    """
    for node in _parsed(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return _positional_settings(node, path), _keyword_settings(node, path)
    raise UserError(f"{path} has no function '{function}'; add it.")


def _positional_settings(function: ast.FunctionDef, path: Path) -> Mapping[str, Setting]:
    """The positional arguments of a function in a module's syntax tree, by name."""
    arguments = function.args.args
    defaults = function.args.defaults  # of the last arguments
    without_default = len(arguments) - len(defaults)
    default_of_each = [None] * without_default + defaults
    return _settings_of_arguments(arguments, default_of_each, path)


def _keyword_settings(function: ast.FunctionDef, path: Path) -> Mapping[str, Setting]:
    """The keyword-only arguments of a function in a module's syntax tree, by name."""
    return _settings_of_arguments(function.args.kwonlyargs, function.args.kw_defaults, path)


def _settings_of_arguments(
    arguments: list[ast.arg], defaults: list[ast.expr | None], path: Path
) -> Mapping[str, Setting]:
    """Settings by name: annotation and default of each argument of a function.

    Args:
        arguments: in the module's syntax tree.
        defaults: the default of each argument there, None for arguments without one.
        path: the module, for messages.

    Raises:
        UserError: A default is not a literal.
    """
    settings = {}
    for argument, default in zip(arguments, defaults, strict=True):
        annotation = ""
        if argument.annotation:
            annotation = ast.unparse(argument.annotation)
        default_value = None
        if default is not None:
            try:
                default_value = ast.literal_eval(default)
            except ValueError as error:
                raise UserError(
                    f"{path} line {default.lineno}: the default of '{argument.arg}' is not a "
                    "literal; write one, so that it can be recorded."
                ) from error
        settings[argument.arg] = Setting(
            annotation=annotation, required=default is None, default=default_value
        )
    return settings
