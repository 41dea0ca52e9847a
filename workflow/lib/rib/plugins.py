"""Loading of mechanisms and layouts: modules that the catalogue names, of the library or of a user's folder."""

import importlib.util
from pathlib import Path
from types import ModuleType

LIBRARY = Path(__file__).resolve().parent


def load_module(path: str | Path) -> ModuleType:
    """Import a module from its file; the file name is the mechanism's or layout's name.

    A file of the library is the module that others import by its name, `rib.methods.ft` for example.
    """
    path = Path(path).resolve()
    if path.is_relative_to(LIBRARY):
        return importlib.import_module(".".join((LIBRARY.name, *path.relative_to(LIBRARY).with_suffix("").parts)))
    spec = importlib.util.spec_from_file_location(f"rib_plugin_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
