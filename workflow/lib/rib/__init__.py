"""Functions for a notebook that read a project folder and run nothing.

`dir(rib)` lists them; they are in rib.project, and docs/sharing.md shows how they are used.
Packages are layers, of which each imports only from those below it: a contract in pyproject.toml.
What the functions need, torch included, is imported when one of their names is first used.
"""

import importlib


def __getattr__(name: str):
    # By name, so that digests of code, which follow imports, don't depend on rib.project.
    if (
        not name.startswith("_")
        and name in (project := importlib.import_module("rib.project")).__all__
    ):
        return getattr(project, name)
    raise AttributeError(f"module 'rib' has no attribute '{name}'")


def __dir__() -> list[str]:
    return importlib.import_module("rib.project").__all__
