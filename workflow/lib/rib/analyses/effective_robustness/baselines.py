"""Baseline models for effective robustness, trained only on in-distribution images.

No torch, no pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

    Effective robustness is measured from a line fitted to them. They come from baselines.csv, and
    from published.csv for models whose entry says baseline.

    Returns:
        For each model and OOD dataset {"model": ..., "dataset": ..., "in_distribution": the dataset
        with the same label space, "id": accuracy on that (percent), "ood": accuracy on the OOD
        dataset (percent)}. OOD datasets that are adversarially filtered, or have no in-distribution
        dataset, are left out.
    """
    published = _published_accuracies(grid)
    pairs = []
    for dataset in grid.ood:
        comparable = in_distribution(grid, dataset)
        if comparable is None or grid.datasets[dataset].adversarially_filtered:
            continue
        for (model, published_dataset), accuracy in published.items():
            if published_dataset == dataset and (model, comparable) in published:
                pair = {
                    "model": model,
                    "dataset": dataset,
                    "in_distribution": comparable,
                    "id": published[model, comparable],
                    "ood": accuracy,
                }
                pairs.append(pair)
    return pairs


def _published_accuracies(grid: Grid) -> dict[tuple[str, str], float]:
    """Percent by model and dataset: {("mobilenetv3_small_050.lamb_in1k", "imagenet_v2"): 44.85}."""
    columns = ("model", "dataset", "accuracy", "source")
    rows = list(grid.catalog.table("baselines.csv", columns, ["accuracy"]))
    for row in grid.catalog.table("published.csv", columns, ["accuracy"]):
        if row["model"] in grid.catalog.models and grid.catalog.models[row["model"]].baseline:
            rows.append(row)
    return {(row["model"], row["dataset"]): float(row["accuracy"]) for row in rows}
