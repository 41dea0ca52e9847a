"""Loading algorithms and layouts, modules of the library or of a user's folder, and what functions are called with."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import get_args

LIBRARY = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The folder `catalog` or `schemas`: inside of an installed library, beside it in a checkout."""
    inside = LIBRARY / name
    return inside if inside.is_dir() else LIBRARY.parents[1] / name


def load_module(path: str | Path) -> ModuleType:
    """Import the module of an algorithm or layout from its file.

    A file of the library is imported under its usual name, for example `rib.methods.ft`.
    """
    path = Path(path).resolve()
    if path.is_relative_to(LIBRARY):
        return importlib.import_module(".".join((LIBRARY.name, *path.relative_to(LIBRARY).with_suffix("").parts)))
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(function: Callable, known: Mapping[str, object], workers: int = 1) -> dict:
    """Arguments of a function that are known, by name.

    A dict is converted if the parameter is annotated as a dataclass; a dataclass with a field `workers` gets their number.
    """
    parameters = inspect.signature(function).parameters.items()
    return {name: _converted(known[name], part.annotation, workers) for name, part in parameters if name in known}


def _converted(value, annotation, workers: int):
    kind = next((kind for kind in (annotation, *get_args(annotation)) if is_dataclass(kind)), None)
    if kind is None or not isinstance(value, dict):
        return value
    types = {field.name: field.type for field in fields(kind)}
    made = {name: _converted(part, types[name], workers) for name, part in value.items()}
    return kind(**made, **({"workers": workers} if "workers" in types else {}))
