"""Loading algorithms and layouts: modules of the library or of a user's catalogue folder."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LIBRARY = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The folder `catalog` or `schemas`: inside of an installed library, beside it in a checkout."""
    inside = LIBRARY / name
    return inside if inside.is_dir() else LIBRARY.parents[1] / name


def load_module(path: str | Path) -> ModuleType:
    """Import the module of an algorithm or layout from its file; the library's by its usual name (`rib.methods.ft`)."""
    path = Path(path).resolve()
    if path.is_relative_to(LIBRARY):
        return importlib.import_module(
            ".".join((LIBRARY.name, *path.relative_to(LIBRARY).with_suffix("").parts))
        )
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(
        spec
    )  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
