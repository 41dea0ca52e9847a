"""Loading algorithms and layouts: modules of the library or of a user's catalogue folder."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

LIBRARY = Path(__file__).resolve().parents[1]
WORKFLOW = LIBRARY.parents[1]


def load_module(path: str | Path) -> ModuleType:
    """Import the module of an algorithm or layout from its file.

    A module of the library is imported by its usual name (`rib.methods.ft`), another one as
    `rib_plugin_<name>`.
    """
    path = Path(path).resolve()
    if path.is_relative_to(LIBRARY):
        path_in_package = path.relative_to(LIBRARY.parent).with_suffix("")
        return importlib.import_module(".".join(path_in_package.parts))
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{path.stem}", path)
    assert spec is not None and spec.loader is not None, f"{path} is no Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
