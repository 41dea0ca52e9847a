"""Random transforms of training images, by torchvision.

Random numbers depend on the seed, the epoch and the image, not on the batch, so that an image can be read twice (by a
network and its teacher), and batches, resuming and the number of jobs change nothing. Images are cropped from the
prepared array, which is already resized and cropped as for evaluation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SMALLEST_CROP = (
    0.9  # of the area. Source: open_clip and wise-ft, the training transform of CLIP models
)


class Augmentation:
    """Random transforms of images at one size.

    Names, in any order: `flip` (horizontal, probability 1/2), `crop` (random resized crop of 0.9 to 1 of the area) and
    `randaugment` (Cubuk et al. 2020, arXiv 1909.13719: two operations of magnitude 9).
    """

    def __init__(self, names: Sequence[str], size: int, seed: int):
        from torchvision.transforms import (
            InterpolationMode,
            v2,
        )  # not imported in jobs that don't augment

        known = {
            "crop": lambda: v2.RandomResizedCrop(
                size,
                scale=(SMALLEST_CROP, 1.0),
                interpolation=InterpolationMode.BICUBIC,
                antialias=True,
            ),
            "flip": v2.RandomHorizontalFlip,
            "randaugment": lambda: v2.RandAugment(num_ops=2, magnitude=9),
        }
        self.transform = v2.Compose([make() for name, make in known.items() if name in names])
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        """An image (3, size, size) uint8 as shown in an epoch; `row` identifies it."""
        (seed,) = np.random.SeedSequence([self.seed, epoch, row]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(seed)
            )  # torch.manual_seed would seed GPUs too, where dropout draws
            return self.transform(image)
