"""Learning rates chosen from a sweep: `snakemake learning_rates`.

Protocol paper chooses them on the training images and evaluates nothing. Protocol held_out
evaluates the targets' select splits, and nothing else, to choose them.
"""

from typing import Any

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table

ON_TRAINING_IMAGES = Table(
    title="Learning rates, chosen on the training images",
    question="method",
    note=(
        "A method that can fit its training images gets the smallest rate at which every run "
        "reaches the family's threshold, any other the rate with the lowest final training loss "
        "(mean over runs)."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Recipe", "recipe"),
        Column("Rate", "lr", form="p"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed"),
        Column("Fit", "fit", form="fit"),
        Column("Loss", "loss", form="decimals"),
        Column("Chosen", "chosen"),
    ],
)
ON_SELECT_SPLITS = Table(
    title="Learning rates, chosen on held-out images of the targets",
    question="method",
    note=(
        "Each method and model gets the smallest rate whose accuracy on the select split, averaged "
        "over targets, is within one standard error of the best rate's; the error is that of the "
        "difference on the same images. For a method that can fit its training images, only rates "
        "count at which every run reaches the family's threshold. A rate at the edge of the sweep "
        "is the best or the chosen one, and a further one should be tried. What other seeds would "
        "change is not in the error."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Recipe", "recipe"),
        Column("Rate", "lr", form="p"),
        Column("Accuracy on the select splits (%)", "accuracy", form="number"),
        Column("Difference from the best", "difference", form="signed"),
        Column("Standard error", "standard_error", form="decimals"),
        Column("Lowest fit (%)", "lowest_fit", form="fit"),
        Column("Every run fits", "all_fit"),
        Column("Chosen", "chosen"),
        Column("At the edge", "at_edge"),
    ],
)
RECIPES = "learning_rates.yaml"  # chosen rates, in the format of the family's file


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the table of rates, on demand; None if no run has one."""
    runs = [run for run in paths.trained_runs if "lr" in grid.methods[run.method].settings]
    if not runs:
        return None
    manifests = [paths.checkpoint("manifest.json", run) for run in runs]
    methods = list(dict.fromkeys(run.method for run in runs))
    params = {
        "swept_methods": {name: _swept_method(grid, name) for name in methods},
        "threshold": grid.family.fit_threshold,
    }
    if not grid.split_fractions:
        return Analysis(
            inputs={
                "manifests_of_runs": manifests,
                "histories": [paths.checkpoint("history.csv", run) for run in runs],
            },
            params=params,
            makes=["learning_rates.csv"],
            tables={"learning_rates": ON_TRAINING_IMAGES},
            on_demand=True,
        )
    return Analysis(
        inputs={
            "manifests_of_runs": manifests,
            "rows": paths.rows_on_select_splits(runs),
            "indexes": paths.indexes(grid.targets),
        },
        params={
            **params,
            "methods": methods,
            "family": grid.family.name,
            "targets": list(grid.targets),
            "seeds": list(grid.seeds),
        },
        makes=["learning_rates.csv", RECIPES],
        tables={"learning_rates": ON_SELECT_SPLITS},
        files={"Chosen learning rates, for the family's file": [RECIPES]},
        on_demand=True,
    )


def _swept_method(grid: Grid, name: str) -> dict[str, Any]:
    """Fields of SweptMethod, which says to which sweep a method with one rate belongs.

    `lora-lr0.001-rank4` gives {"method": "lora-rank4", "entry": "lora", "lr": {"net": 0.001}, ...}.
    """
    method = grid.methods[name]
    return {
        "method": method.without_rate,
        "entry": method.base,
        "recipe": method.recipe,
        "can_fit": method.can_fit,
        "lr": {
            model: grid.settings_on(name, model)["lr"]
            for model in grid.models
            if name in grid.methods_of(model)
        },
    }
