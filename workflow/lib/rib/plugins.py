"""Loading of mechanisms and layouts: modules that the catalogue names, of the library or of a user's folder."""

import importlib.util
from pathlib import Path
from types import ModuleType


def load_module(path: str | Path) -> ModuleType:
    """Import a module from its file; the file name is the mechanism's or layout's name."""
    path = Path(path)
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
