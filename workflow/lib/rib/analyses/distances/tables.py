"""The tables of this analysis."""

import pandas as pd

from rib.analyses.distances.association import all_distances, association_table
from rib.statistics.inputs import Inputs


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: distances, and association (correlations with RI, accuracy)."""
    params = inputs.params
    distances = all_distances(
        params["models"], inputs.paths("features"), inputs.paths("compression")
    )
    association = association_table(
        distances,
        inputs.table("accuracy"),
        inputs.table("ri"),
        targets=params["targets"],
        ood_datasets=params["ood_datasets"],
        in_distribution=params["in_distribution"],
        pairs=params["pairs"],
        confidence=params["confidence"],
        seed=params["seed"],
    )
    return {"distances": distances, "association": association}
