"""Baseline models for effective robustness, trained only on in-distribution images.

No torch, no pandas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rib.catalog.published import PublishedAccuracy, accuracies_of_testbed, published_accuracies

if TYPE_CHECKING:
    from rib.grid.grid import Grid


def in_distribution(grid: Grid, dataset: str) -> str | None:
    """The in-distribution dataset that a dataset's accuracies are compared with, or None.

    It has the same classes. Accuracies over 200 and 1000 classes are not comparable: a model
    fine-tuned on 200 classes may lose the others. If each dataset has its own part of the family's
    classes, no two datasets are comparable.
    """
    family = grid.catalog.families[grid.datasets[dataset].family]
    if family.classes_per_dataset:
        return None
    label_space = grid.catalog.label_space(grid.datasets[dataset])
    for name, entry in grid.datasets.items():
        if entry.role != "in_distribution":
            continue
        if grid.catalog.label_space(entry).digest == label_space.digest:
            return name
    return None


def baseline_accuracies(grid: Grid) -> list[dict[str, Any]]:
    """Published accuracies of baseline models, which were trained only on in-distribution images.

    Effective robustness is measured from a line fitted to them. The models are those that a table
    of published accuracies marks, and those whose entry says baseline, at their own input size.

    Returns:
        For each model and OOD dataset {"model": ..., "dataset": ..., "in_distribution": the dataset
        with the same label space, "id": accuracy on that (percent), "ood": accuracy on the OOD
        dataset (percent), "source": of the latter}. OOD datasets that are adversarially filtered,
        or have no in-distribution dataset, are left out.
    """
    own_and_timm = [
        stated for stated in published_accuracies(grid.catalog) if _is_baseline(grid, stated)
    ]
    # Apart, since the testbed has its own names of models.
    tables = [
        _by_model_and_dataset(own_and_timm),
        _by_model_and_dataset(accuracies_of_testbed(grid.catalog)),
    ]
    pairs = []
    for dataset in grid.ood:
        comparable = in_distribution(grid, dataset)
        if comparable is None or grid.datasets[dataset].adversarially_filtered:
            continue
        for published in tables:
            pairs.extend(_pairs_of_table(published, dataset, comparable))
    return pairs


def _pairs_of_table(
    published: Mapping[tuple[str, str], PublishedAccuracy], dataset: str, comparable: str
) -> list[dict[str, Any]]:
    """Accuracies of each model that has both, on a dataset and the one in distribution."""
    pairs = []
    for (model, published_dataset), stated in published.items():
        if published_dataset == dataset and (model, comparable) in published:
            pair = {
                "model": model,
                "dataset": dataset,
                "in_distribution": comparable,
                "id": published[model, comparable].accuracy,
                "ood": stated.accuracy,
                "source": stated.source,
            }
            pairs.append(pair)
    return pairs


def _is_baseline(grid: Grid, stated: PublishedAccuracy) -> bool:
    """Whether the table marks the model, or its entry says baseline, at its own input size."""
    if stated.baseline:
        return True
    model = grid.catalog.models.get(stated.model)
    if model is None or not model.baseline:
        return False
    return stated.image_size in (None, model.preprocessing.input_size)


def _by_model_and_dataset(
    accuracies: Iterable[PublishedAccuracy],
) -> dict[tuple[str, str], PublishedAccuracy]:
    """{("vgg11.tv_in1k", "imagenet_v2"): ...}; of several the last."""
    return {(stated.model, stated.dataset): stated for stated in accuracies}
