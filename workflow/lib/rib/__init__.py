"""ImageNet-RIB as a library.

`dir(rib)` lists its Python interface, which is rib.api; docs/python.md shows how it is used.
Packages are layers, of which each imports only from those below it: a contract in pyproject.toml.
What the interface needs, torch included, is imported when one of its names is first used.
"""

import importlib


def __getattr__(name: str):
    # By name, so that digests of code, which follow imports, don't depend on the API.
    if not name.startswith("_") and name in (api := importlib.import_module("rib.api")).__all__:
        return getattr(api, name)
    raise AttributeError(f"module 'rib' has no attribute '{name}'")


def __dir__() -> list[str]:
    return importlib.import_module("rib.api").__all__
