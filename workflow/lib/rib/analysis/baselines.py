"""Baseline models, trained only on in-distribution images, for effective robustness. No torch, no pandas."""

from rib.config.grid import Grid


def in_distribution(grid: Grid, dataset: str) -> str | None:
    """The in-distribution dataset with the same label space as a dataset, or None.

    Accuracies over 200 and 1000 classes are not comparable: a model fine-tuned on 200 classes may lose the others. If
    each dataset has its own part of the family's classes, no two are comparable.
    """
    if grid.catalog.families[grid.datasets[dataset].family].classes_per_dataset:
        return None
    space = grid.catalog.label_space(grid.datasets[dataset]).digest
    fitting = (name for name, entry in grid.datasets.items() if entry.role == "in_distribution")
    return next(
        (name for name in fitting if grid.catalog.label_space(grid.datasets[name]).digest == space),
        None,
    )


def baselines(grid: Grid) -> list[dict]:
    """Published accuracies of the baseline models.

    Returns:
        One entry per model and OOD dataset that has an in-distribution dataset and is not adversarially filtered:
        model, dataset, in_distribution, id, ood (percent). They are from baselines.csv, and from published.csv for
        models whose entry is marked as baseline.
    """
    columns = ("model", "dataset", "accuracy", "source")
    rows = grid.catalog.table("baselines.csv", columns, ["accuracy"])
    own = {name for name, entry in grid.catalog.models.items() if entry.baseline}
    rows += [
        row
        for row in grid.catalog.table("published.csv", columns, ["accuracy"])
        if row["model"] in own
    ]
    stated = {(row["model"], row["dataset"]): float(row["accuracy"]) for row in rows}
    return [
        {
            "model": model,
            "dataset": name,
            "in_distribution": inside,
            "id": stated[model, inside],
            "ood": accuracy,
        }
        for name in grid.ood
        if not grid.datasets[name].adversarially_filtered
        and (inside := in_distribution(grid, name))
        for (model, dataset), accuracy in stated.items()
        if dataset == name and (model, inside) in stated
    ]
