"""Predictions of a pretrained network on the first images of datasets."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rib.base.files import read_json
from rib.base.progress import Progress
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.evaluation_settings import LabelCheckSettings
from rib.evaluation.score import score
from rib.grid.evaluation_batches import images_per_pass
from rib.models import device as devices
from rib.models.images import Images
from rib.models.state import network_in_state
from rib.schema.run import PRETRAINED

MOST_IMAGES = 2000  # per dataset


def predict_first_images(
    model_folder: Path, datasets: Sequence[DatasetFiles], settings: LabelCheckSettings
) -> dict[str, pd.DataFrame]:
    """Predictions on at most MOST_IMAGES images of each dataset, to check its labels.

    Returns:
        Table of each dataset, {"emoji": table, ...}, with a row per image and the columns row
        (position in the prepared dataset's index), prediction (class) and rank (0: correct).
    """
    first_images_of_datasets = [
        first_images(load_dataset(files, settings.view, TEST), MOST_IMAGES) for files in datasets
    ]
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    device = devices.start(settings.compute)
    batch_size = images_per_pass(settings.evaluation_batch_size, device.type)
    predictions = {}
    for dataset in first_images_of_datasets:
        inputs = Images(dataset, preprocessing, device)
        network = network_in_state(model_folder, {PRETRAINED: 1.0}, {}, inputs)
        progress = Progress(desc=dataset.name, total=len(dataset.labels), unit="image")
        (scores,) = score([network], inputs, dataset, batch_size, progress)
        progress.close()
        columns = {name: scores[name].numpy() for name in ("prediction", "rank")}
        predictions[dataset.name] = pd.DataFrame(
            {"row": dataset.index["row"].to_numpy(), **columns}
        )
    return predictions
