"""Functions for notebooks that read a project folder and run nothing.

`dir(rib)` lists them; they are in rib.project, and docs/sharing.md shows their use. Packages are
layers that import only from lower ones: a contract in pyproject.toml. The functions' dependencies,
including torch, are imported at the first use of a name.
"""

import importlib


def __getattr__(name: str):
    """A function of rib.project, imported when a notebook first uses it."""
    # Imported by name, so that digests of code, which follow imports, don't depend on rib.project.
    if (
        not name.startswith("_")
        and name in (project := importlib.import_module("rib.project")).__all__
    ):
        return getattr(project, name)
    raise AttributeError(f"module 'rib' has no attribute '{name}'")


def __dir__() -> list[str]:
    return importlib.import_module("rib.project").__all__
