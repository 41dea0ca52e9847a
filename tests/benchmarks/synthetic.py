"""Input of the benchmarks: a network with random weights and datasets of noise."""

from pathlib import Path

import numpy as np
import timm
import torch

from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
from tiny.changed import replace
from tiny.models import training

ARCHITECTURE, SIDE = "tf_efficientnet_lite0", 96
KEYS = tuple(map(str, range(200)))
SPACE = LabelSpace(KEYS, tuple((5 * i,) for i in range(200)), KEYS)
TRAINING = replace(training.TRAINING, epochs=1, batch_size=32)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return (
        timm.create_model(ARCHITECTURE, num_classes=1000)
        .eval()
        .to(memory_format=torch.channels_last)
    )


def dataset(folder: Path, n: int, side: int = SIDE) -> PreparedDataset:
    """A prepared dataset of random images, in <folder>/<side>."""
    noise = training.random_images(n, side)
    noise.labels, noise.space = np.arange(n) % len(SPACE.keys), SPACE
    return PreparedDataset.open(training.prepared_folder(folder / str(side), noise), "bench")


def in_memory(data: PreparedDataset, size: int) -> list[torch.Tensor]:
    images = training.images_of(data)
    return [images[slice(start, start + size)].clone() for start in range(0, len(images), size)]
