"""Reading features that a features job wrote. No torch."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from rib.data.prepared import PreparedDataset
from rib.io import UserError


def read_features(path: Path, layer: str) -> tuple[np.ndarray, PreparedDataset]:
    """One layer's features of a dataset, and the images that they are of (labels and index only).

    Args:
        path: <dataset>.safetensors, beside which lies <dataset>.index.parquet.
        layer: its name.

    Returns:
        (n, d) float32, and the dataset in the same order.

    Raises:
        UserError: the layer was not kept.
    """
    with safe_open(path, framework="numpy") as file:
        layers = sorted(file.keys())
        if layer not in layers:
            raise UserError(
                f"{path} has no layer {layer}, but {', '.join(layers)}; add it to representations.layers in config.yaml."
            )
        values = file.get_tensor(layer)
    index = pq.read_table(path.with_suffix(".index.parquet"))
    labels = index["label"].to_numpy().astype(np.int64)
    return values, PreparedDataset(path.stem, None, labels, None, index, None)
