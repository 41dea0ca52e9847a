"""Read stored features, without torch."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from rib.base.errors import UserError
from rib.data.dataset import PreparedDataset


def read_features(path: Path, layer: str) -> tuple[np.ndarray, PreparedDataset]:
    """Features (outputs of one layer) of the images of a dataset.

    Args:
        path: <dataset>.safetensors, beside <dataset>.index.parquet.
        layer: such as `pre_logits`.

    Returns:
        Features, (n, d) float32, and the dataset in the same order (only labels and index).

    Raises:
        UserError: the layer was not stored.
    """
    with safe_open(path, framework="numpy") as file:
        layers = sorted(file.keys())
        if layer not in layers:
            raise UserError(
                f"{path} has no layer {layer}, only {', '.join(layers)}; add it to "
                "representations.layers in config.yaml."
            )
        features = file.get_tensor(layer)
    index = pq.read_table(path.with_suffix(".index.parquet"))
    dataset = PreparedDataset(
        name=path.stem,
        images=None,
        labels=index["label"].to_numpy().astype(np.int64),
        rows=None,
        index=index,
        space=None,  # type: ignore[arg-type]  # nobody needs the names of its classes
    )
    return features, dataset
