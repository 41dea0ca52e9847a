"""The tables of this analysis."""

import pandas as pd

from rib.analyses.learning_rates.by_loss import SweptMethod, choice_table
from rib.analyses.learning_rates.held_out import (
    choose_on_select_splits,
    family_recipes,
    warnings_on,
)
from rib.base.progress import log, print_lines
from rib.statistics.inputs import Inputs


def tables(inputs: Inputs) -> dict[str, pd.DataFrame | str]:
    """Table learning_rates to write and, under protocol held_out, recipes as YAML."""
    swept_methods = {
        name: SweptMethod(**fields) for name, fields in inputs.params["swept_methods"].items()
    }
    if "rows" in inputs.files:
        return _on_select_splits(inputs, swept_methods)
    rates = choice_table(
        manifests=inputs.paths("manifests_of_runs"),
        histories=inputs.paths("histories"),
        swept_methods=swept_methods,
        threshold=inputs.params["threshold"],
    )
    return {"learning_rates": rates}


def _on_select_splits(
    inputs: Inputs, swept_methods: dict[str, SweptMethod]
) -> dict[str, pd.DataFrame | str]:
    """Table of rates, and the chosen rates as YAML text, which is also printed.

    Select splits are held-out images of the targets, which choose settings.
    """
    params = inputs.params
    threshold = params["threshold"]
    rates = choose_on_select_splits(
        manifests=inputs.paths("manifests_of_runs"),
        select_files=inputs.rows(params["methods"]),
        swept_methods=swept_methods,
        targets=params["targets"],
        threshold=threshold,
    )
    recipes = family_recipes(
        rates,
        swept_methods=swept_methods,
        family=params["family"],
        targets=params["targets"],
        seeds=params["seeds"],
    )
    print_lines(*recipes.splitlines())
    for sentence in warnings_on(rates, threshold):
        log.warning("%s", sentence)
    return {"learning_rates": rates, "learning_rates.yaml": recipes}
