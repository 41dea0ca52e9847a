"""Load algorithms and layouts: modules of the library or of a user's catalogue folder."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from rib.base.errors import UserError
from rib.base.text import redacted

LIBRARY = Path(__file__).resolve().parents[1]
WORKFLOW = LIBRARY.parents[1]
SHOWN = 100  # characters of a wrong value in a message


def load_module(path: str | Path) -> ModuleType:
    """Import the module of an algorithm or layout from its file.

    A module of the library keeps its name, such as `rib.methods.ft`; a user's module becomes
    `rib_plugin_<name>`.

    Raises:
        UserError: a user's module can't be imported; the message names its line.
    """
    file = Path(path).resolve()
    if file.is_relative_to(LIBRARY):
        path_in_package = file.relative_to(LIBRARY.parent).with_suffix("")
        return importlib.import_module(".".join(path_in_package.parts))
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{file.stem}", file)
    assert spec is not None and spec.loader is not None, f"{file} is no Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look the module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{where}: {type(error).__name__}: {reason}; correct it, or install what it needs."
        ) from error
    return module


def load_function(path: str | Path, name: str) -> Callable[..., Any]:
    """A function of an algorithm's or layout's module, such as `items` of a layout.

    Raises:
        UserError: the module has no such function.
    """
    function = getattr(load_module(path), name, None)
    if not inspect.isfunction(function):
        raise UserError(f"{path} has no function '{name}'; add it, or correct the entry.")
    return function


def checked_settings(
    function: Callable[..., Any], settings: Mapping[str, Any], file: str | Path, entry: str
) -> dict[str, Any]:
    """Validate settings against the annotations of a function's keyword-only arguments.

    The function itself is not called: its other arguments do not exist yet.

    Args:
        function: of an algorithm or layout, such as `weights(parents, *, alpha: UpToOne)`.
        settings: such as `{"alpha": 1}`, which gives `{"alpha": 1.0}`; defaults of the function are
            added.
        file: where the function is, for messages.
        entry: where the user corrects the settings, such as `datasets.yaml, noto`.

    Raises:
        UserError: a setting is unknown or missing, or does not fit its annotation.
    """
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind == parameter.KEYWORD_ONLY:
            annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
            is_required = parameter.default is parameter.empty
            fields[name] = (annotation, ... if is_required else parameter.default)
    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), **fields)
    with refused_settings(file, entry, fields):
        return dict(model.model_validate(settings))


@contextmanager
def refused_settings(file: str | Path, entry: str, names: Collection[str]) -> Iterator[None]:
    """Turn pydantic's error about settings into a UserError of one sentence.

    For example: lwf.py: the setting 'distil' is 'classes', but it should be 'all' or 'class';
    correct it in methods.yaml, lwf, or in method_settings.

    Args:
        file: where the checking class or function is.
        entry: where the user corrects the settings.
        names: all settings that exist, such as `("distil", "alpha")`.
    """
    try:
        yield
    except ValidationError as error:
        raise UserError(f"{Path(file).name}: {_mistake(error, names)} {entry}.") from error


def _mistake(error: ValidationError, names: Collection[str]) -> str:
    """The first error; the caller appends the entry: `the setting 'x' is missing; add it in`."""
    first = error.errors(include_url=False)[0]
    setting = first["loc"][0] if first["loc"] else ""
    expectation = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if first["type"].startswith("missing"):
        return f"the setting '{setting}' is missing; add it in"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = ", ".join(names) or "none"
        return f"there is no setting '{setting}', known are {known}; correct it in"
    if not first["loc"]:  # pydantic names no setting if a check of several settings fails
        return f"{expectation}; correct it in"
    wrong_value = redacted(repr(first["input"]))
    if len(wrong_value) > SHOWN:
        wrong_value = f"{wrong_value[:SHOWN]}..."
    # If an element of a list is wrong, the list "has" the value.
    verb = "is" if len(first["loc"]) == 1 else "has"
    return f"the setting '{setting}' {verb} {wrong_value}, but {expectation}; correct it in"
