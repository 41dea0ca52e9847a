"""Input of the benchmarks: a network with random weights and datasets of noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import timm
import torch

from rib.config.label_space import LabelSpace
from rib.data.prepared import PreparedDataset
from tiny import training

ARCHITECTURE, SIDE, CLASSES = "tf_efficientnet_lite0", 96, 200
TRAINING = replace(training.TRAINING, epochs=1, batch_size=32)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=1000).eval().to(memory_format=torch.channels_last)


def dataset(folder: Path, n: int, side: int = SIDE) -> PreparedDataset:
    """A memory-mapped dataset of random images."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 255, (n, side, side, 3), np.uint8))
    return labelled(np.load(folder / "images.npy", mmap_mode="r"), n)


def labelled(images: np.ndarray, n: int) -> PreparedDataset:
    """A dataset of the given images with CLASSES classes."""
    ids = [f"i{number}" for number in range(n)]
    labels = np.arange(n) % CLASSES
    columns = {"row": pa.array(range(n), pa.int32()), "image_id": ids, "label": pa.array(labels, pa.int16())}
    index = pa.table({**columns, "source_id": ids, "object_id": ids})
    keys = tuple(map(str, range(CLASSES)))
    space = LabelSpace(keys, tuple((5 * i,) for i in range(CLASSES)), keys)
    return PreparedDataset("bench", images, labels, None, index, space)


def in_memory(data: PreparedDataset, size: int) -> list[torch.Tensor]:
    inputs = training.images_of(data).inputs
    return [inputs[slice(start, start + size)].clone() for start in range(0, len(inputs), size)]
