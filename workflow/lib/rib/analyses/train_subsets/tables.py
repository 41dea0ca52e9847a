"""The tables of this analysis."""

import pandas as pd

from rib.statistics.inputs import Inputs
from rib.statistics.sizes import images_of_pretraining, size_table


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table sizes to write: RI and mRI by numbers of training images."""
    pretraining_images = images_of_pretraining(
        inputs.params["stated_images"], inputs.paths("descriptions")
    )
    sizes = size_table(
        inputs.table("ri"), inputs.table("mri"), inputs.paths("manifests"), pretraining_images
    )
    return {"sizes": sizes}
