"""Settings that several analyses share. No pandas: rules import this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rib.base.settings import Settings, Texts
from rib.config.settings import OTHER
from rib.config.shared_sources import leak_free_groups, leaking_groups, sharing_targets
from rib.data.grid_views import view_at
from rib.data.settings import DatasetView
from rib.statistics.conditions import conditions_of

if TYPE_CHECKING:
    from rib.config.grid import Grid


class RIStatistics(Settings):
    """How RI and its intervals are computed."""

    ood_datasets: list[str]  # the out-of-distribution datasets that count in RI
    # Datasets with a common group share source images; None: no images are excluded from RI.
    source_groups: dict[str, str] | None
    replicates: int  # of the bootstrap
    confidence: float  # coverage of intervals, 0 to 1
    seed: int  # of the resampling


class FitRule(Settings):
    """What decides how runs are marked: as underfitted, or their rate (rib.statistics.fit)."""

    can_fit: list[str]  # methods whose runs are underfitted below the threshold
    threshold: float | None  # accuracy on the training images, 0 to 1; None for no threshold
    whole_targets: bool  # whether runs of size `all` train on the images that are evaluated
    # by model, methods whose learning rate was not chosen for it: {"my_cnn": ["ft", "wise_ft"]}
    other_rates: dict[str, list[str]] = Field(default_factory=dict)


class GridTableSettings(Settings):
    """What the tables of a grid show (rib.statistics.tables.grid_tables)."""

    conditions: str  # on which the numbers depend, the last column of each table
    code: str  # digest of the code that makes the tables
    methods: Texts = ()  # whose rows are read
    ri: RIStatistics
    fit: FitRule
    # Datasets of the table in_distribution, which do not count in RI; none: no table.
    in_distribution: list[str]
    view: DatasetView  # with which datasets are read, to see which classes targets show
    excludes_proxy: list[str]  # datasets of which the images of the pretraining proxy are left out
    split: list[str]  # datasets that are split; empty under protocol paper
    # Where images that share their source with one of the target count in RI: targets with such
    # images, and the source group of each dataset. There is then a table leak_free.
    sharing_targets: Texts = ()
    leaking_groups: dict[str, str] | None = None
    filtered: Texts = ()  # adversarially filtered datasets; mRI is also shown without them


def ri_statistics(grid: Grid) -> RIStatistics:
    """How RI of a grid and its intervals are computed."""
    return RIStatistics(
        ood_datasets=grid.ood,
        source_groups=leak_free_groups(grid),
        **grid.config["statistics"],
    )


def in_distribution_datasets(grid: Grid) -> list[str]:
    """Datasets whose change of accuracy is shown, and which don't count in RI."""
    return [name for name, dataset in grid.datasets.items() if dataset.role == "in_distribution"]


def fit_rule(grid: Grid) -> FitRule:
    """What decides how runs of a grid are marked."""
    return FitRule(
        can_fit=[name for name, method in grid.methods.items() if method.can_fit],
        threshold=grid.family.fit_threshold,
        whole_targets=grid.split_fractions is None,
        other_rates=_other_rates(grid),
    )


def _other_rates(grid: Grid) -> dict[str, list[str]]:
    """Methods by model that have another network's learning rate: {"my_cnn": ["ft", "wise_ft"]}."""
    methods_by_model = {}
    for model in grid.models:
        methods = [name for name in grid.methods_of(model) if _has_other_rate(grid, name, model)]
        if methods:
            methods_by_model[model] = methods
    return methods_by_model


def _has_other_rate(grid: Grid, method: str, model: str) -> bool:
    """Whether a method, or one of its parents, is trained at a rate for all other models."""
    if grid.key_of_rate(method, model) == OTHER:
        return True
    parents = grid.methods[method].parents
    return any(_has_other_rate(grid, parent, model) for parent in parents)


def filtered_datasets(grid: Grid) -> list[str]:
    """Adversarially filtered datasets, if mRI can be computed without them.

    It needs two other datasets that count.
    """
    filtered = [name for name in grid.ood if grid.datasets[name].adversarially_filtered]
    return filtered if len(grid.ood) > len(filtered) + 1 else []


def metrics_of(grid: Grid) -> list[str]:
    """Names of the tables that are computed from the rows of a grid."""
    names = ["accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes"]
    if in_distribution_datasets(grid):
        names.append("in_distribution")
    if leaking_groups(grid):
        names.append("leak_free")
    return names


def grid_table_settings(grid: Grid, code: str) -> GridTableSettings:
    """Settings of the job that computes the tables of a grid.

    Args:
        code: digest of the code that computes them.
    """
    first_geometry = grid.geometry(next(iter(grid.models)))
    groups = leaking_groups(grid)
    return GridTableSettings(
        methods=tuple(dict.fromkeys(run.method for run in grid.runs())),
        ri=ri_statistics(grid),
        fit=fit_rule(grid),
        in_distribution=in_distribution_datasets(grid),
        view=view_at(grid, first_geometry, grid.datasets),
        excludes_proxy=[name for name in grid.datasets if grid.excludes_proxy(name)],
        split=list(grid.datasets) if grid.split_fractions else [],
        sharing_targets=tuple(sharing_targets(grid)) if groups else (),
        leaking_groups=groups,
        filtered=tuple(filtered_datasets(grid)),
        conditions="; ".join(conditions_of(grid)),
        code=code,
    )
