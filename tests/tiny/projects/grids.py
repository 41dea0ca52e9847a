"""Grids of the project's own catalogue, resolved from choices of config."""

from functools import cache

from rib.catalog.catalog import Catalog
from rib.grid.grid import Grid, resolve_grid
from rib.schema.config import config_of
from tiny.projects.project import ROOT


@cache
def project_catalog() -> Catalog:
    """The project's own catalogue."""
    return Catalog([ROOT / "workflow/catalog"])


def grid(catalog: Catalog | None = None, **choices) -> Grid:
    """The grid of some choices, with the defaults of config.yaml for the others.

    It is of the emoji family unless the choices name another.
    """
    config = config_of({"family": "emoji", **choices}, "config.yaml")
    return resolve_grid(config, catalog or project_catalog())
