"""The tables of this analysis."""

import pandas as pd

from rib.statistics.inputs import Inputs
from rib.statistics.sizes import images_of_pretraining, pretraining_size_table


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table pretraining_sizes to write: accuracies and mRI by model, method, size."""
    pretraining_images = images_of_pretraining(
        inputs.params["stated_images"], inputs.paths("descriptions")
    )
    table = pretraining_size_table(inputs.table("mri"), inputs.table("ood"), pretraining_images)
    return {"pretraining_sizes": table}
