"""Published accuracies that fit a grid. No torch, no pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rib.analyses.published.obstacles import obstacle_to_comparison
from rib.catalog.published import (
    PublishedAccuracy,
    PublishedMethod,
    published_accuracies,
    published_methods,
    timm_name,
)
from rib.schema.run import PRETRAINED

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def stated_accuracies(grid: Grid) -> list[dict[str, Any]]:
    """Published accuracies of the grid's models on its datasets, at the size nearest to its own.

    Returns:
        For each {"model": "resnet50.tv2_in1k", "dataset": "imagenet_v2",
        "image_size": 224, or None where the source doesn't say,
        "accuracy": percent, "source": ..., "obstacle": why the measured accuracy is not comparable,
        or None}.
    """
    names: dict[str, list[str]] = {}  # of the grid's models, by name in the tables
    for name, model in grid.models.items():
        for published_name in {name, timm_name(model)}:
            names.setdefault(published_name, []).append(name)
    candidates: dict[tuple[str, str], list[PublishedAccuracy]] = {}
    for published in published_accuracies(grid.catalog):
        for name in names.get(published.model, []):
            if published.dataset in grid.datasets and _has_its_head(grid, name, published):
                key = (name, published.dataset)
                candidates.setdefault(key, []).append(published)
    stated = []
    for (name, dataset), all_sizes in candidates.items():
        published = _nearest_in_size(all_sizes, grid.geometry(name).size)
        row = {
            "model": name,
            "dataset": dataset,
            "image_size": published.image_size,
            "accuracy": published.accuracy,
            "source": published.source,
            "obstacle": obstacle_to_comparison(grid, name, published),
        }
        stated.append(row)
    return stated


def _has_its_head(grid: Grid, model: str, published: PublishedAccuracy) -> bool:
    """Whether a model has the head that was published; timm's accuracies are of that head."""
    return published.image_size is None or grid.models[model].head == "published"


def _nearest_in_size(all_sizes: list[PublishedAccuracy], size: int) -> PublishedAccuracy:
    """The accuracy at a size, or at the nearest one; a table without sizes comes first."""
    without_size = [published for published in all_sizes if published.image_size is None]
    if without_size:
        return without_size[-1]
    return min(all_sizes, key=lambda published: abs((published.image_size or 0) - size))


def stated_methods(grid: Grid) -> list[dict[str, Any]]:
    """Published accuracies of fine-tuned models that fit the grid's targets in distribution.

    Returns:
        For each the attributes of PublishedMethod, and "runs", the grid's methods that are this
        one, such as ["ft", "ft_adamw"]; empty if it has none. There are none at all if no target
        in distribution was fine-tuned on in a paper, with one of the grid's models.
    """
    stated = []
    for published in published_methods(grid.catalog):
        if (
            published.target in grid.id_targets
            and published.model in grid.models
            and published.dataset in grid.datasets
        ):
            stated.append({**vars(published), "runs": _methods_of_grid(grid, published)})
    return stated


def _methods_of_grid(grid: Grid, published: PublishedMethod) -> list[str]:
    """Names of the grid's methods and variants that are of the published method's entry."""
    if published.method == PRETRAINED:
        return [PRETRAINED]
    return [
        name for name, method in grid.methods.items() if published.method in (name, method.base)
    ]
