"""Settings that several analyses share. No pandas: rules import this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rib.base.params import Settings, Texts
from rib.data.data_settings import DatasetView
from rib.data.grid_views import view_at
from rib.grid.leaks import leak_free_groups, leaking_groups, sharing_targets
from rib.schema.algorithm_settings import OTHER
from rib.statistics.conditions import conditions_of

if TYPE_CHECKING:
    from rib.grid.grid import Grid


class RIStatistics(Settings):
    """How RI and its intervals are computed."""

    ood_datasets: list[str]  # count in RI
    # Datasets of the same group share source images; None excludes no images from RI.
    source_groups: dict[str, str] | None
    replicates: int  # of the bootstrap
    confidence: float  # coverage of intervals, 0 to 1
    seed: int  # of the resampling


class FitRule(Settings):
    """When runs are marked as underfitted, or because of their learning rate."""

    can_fit: list[str]  # methods whose runs are underfitted below the threshold
    threshold: float | None  # accuracy on the training images, 0 to 1; None for no threshold
    whole_targets: bool  # runs of size `all` train on the images that are evaluated
    # methods whose learning rate was not chosen for the model: {"my_cnn": ["ft", "wise_ft"]}
    other_rates: dict[str, list[str]] = Field(default_factory=dict)


class GridTableSettings(Settings):
    """Contents of the tables of a grid."""

    conditions: str  # last column of each table: what else the numbers depend on
    code: str  # a changed digest makes the tables again
    methods: Texts = ()  # whose rows are read
    ri: RIStatistics
    fit: FitRule
    # Datasets of the table in_distribution, which don't count in RI; none: no table.
    in_distribution: list[str]
    # Targets in distribution, such as imagenet_train: their runs have RI, but count in no mean.
    id_targets: Texts = ()
    view: DatasetView  # for the training images of targets, whose classes are seen
    # Datasets without the images of the pretraining proxy (stand-in for pretraining data).
    excludes_proxy: list[str]
    split: list[str]  # datasets that are split; empty under protocol paper
    # If images that share their source with an image of the target count in RI: targets with such
    # images, and the source group of each dataset, for the table leak_free.
    sharing_targets: Texts = ()
    leaking_groups: dict[str, str] | None = None
    filtered: Texts = ()  # adversarially filtered datasets; mRI is also given without them


def ri_statistics(grid: Grid) -> RIStatistics:
    """How RI of a grid and its intervals are computed."""
    return RIStatistics(
        ood_datasets=grid.ood,
        source_groups=leak_free_groups(grid),
        **grid.config["statistics"],
    )


def in_distribution_datasets(grid: Grid) -> list[str]:
    """Datasets whose change of accuracy is shown, but doesn't count in RI."""
    return [name for name, dataset in grid.datasets.items() if dataset.role == "in_distribution"]


def fit_rule(grid: Grid) -> FitRule:
    """When runs of a grid are marked as underfitted, or because of their learning rate."""
    return FitRule(
        can_fit=[name for name, method in grid.methods.items() if method.can_fit],
        threshold=grid.family.fit_threshold,
        whole_targets=grid.split_fractions is None,
        other_rates=_other_rates(grid),
    )


def _other_rates(grid: Grid) -> dict[str, list[str]]:
    """{"my_cnn": ["ft", "wise_ft"]}: methods trained at another network's learning rate."""
    methods_by_model = {}
    for model in grid.models:
        methods = [name for name in grid.methods_of(model) if _has_other_rate(grid, name, model)]
        if methods:
            methods_by_model[model] = methods
    return methods_by_model


def _has_other_rate(grid: Grid, method: str, model: str) -> bool:
    """Whether the rate was not chosen for the model; a merge has the rates of its parents."""
    if grid.key_of_rate(method, model) == OTHER:
        return True
    parents = grid.methods[method].parents
    return any(_has_other_rate(grid, parent, model) for parent in parents)


def filtered_datasets(grid: Grid) -> list[str]:
    """Adversarially filtered datasets, if mRI can be computed without them."""
    filtered = [name for name in grid.ood if grid.datasets[name].adversarially_filtered]
    # mRI needs two other datasets that count.
    return filtered if len(grid.ood) > len(filtered) + 1 else []


def metrics_of(grid: Grid) -> list[str]:
    """Names of the tables that are computed from the rows of a grid."""
    names = ["accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes"]
    if in_distribution_datasets(grid):
        names.append("in_distribution")
    if leaking_groups(grid):
        names.append("leak_free")
    if grid.id_targets:
        names.append("id_targets_fit")
    return names


def grid_table_settings(grid: Grid, code: str) -> GridTableSettings:
    """Settings of the job that computes the tables of a grid; `code` is a digest of its code."""
    first_geometry = grid.geometry(next(iter(grid.models)))
    groups = leaking_groups(grid)
    return GridTableSettings(
        methods=tuple(dict.fromkeys(run.method for run in grid.runs())),
        ri=ri_statistics(grid),
        fit=fit_rule(grid),
        in_distribution=in_distribution_datasets(grid),
        id_targets=tuple(grid.id_targets),
        view=view_at(grid, first_geometry, grid.datasets),
        excludes_proxy=[name for name in grid.datasets if grid.excludes_proxy(name)],
        split=list(grid.datasets) if grid.split_fractions else [],
        sharing_targets=tuple(sharing_targets(grid)) if groups else (),
        leaking_groups=groups,
        filtered=tuple(filtered_datasets(grid)),
        conditions="; ".join(conditions_of(grid)),
        code=code,
    )
