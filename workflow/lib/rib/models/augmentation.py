"""Random transforms of training images: shifts, and others by torchvision.

Random numbers depend on the seed, the epoch and the image, not on the batch, so that an image can
be read twice (by a network and its teacher), and batches, resuming and the number of jobs change
nothing. Images are cropped from the prepared array, which is already resized and cropped as for
evaluation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Of the area. Source: open_clip and wise-ft, the training transform of CLIP models.
SMALLEST_CROP = 0.9


SHIFTS = 1  # so that shifts are drawn with other random numbers than the order of images


class Shifts:
    """Random shifts of images, up or down and to the left or right.

    Pixels that come in at a side repeat those of the image's edge.

    Args:
        limit: largest shift in each direction, in pixels.
        number_of_images: images of the array that is trained on.
    """

    def __init__(self, limit: int, number_of_images: int, seed: int):
        """Arguments are those of the class; `seed` is that of the random shifts."""
        self.limit = limit
        self.number_of_images = number_of_images
        self.seed = seed
        self.epoch: int | None = None
        self.corners = np.zeros((number_of_images, 2), np.int64)

    def __call__(self, images: np.ndarray, epoch: int, rows: np.ndarray) -> np.ndarray:
        """Images (N, H, W, 3) as shown in an epoch, in the same shape; `rows` identify them."""
        number, height, width, _ = images.shape
        border = (self.limit, self.limit)
        padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode="edge")
        # A shifted image is a window of the padded one, with its upper left corner at random.
        corners = self._corners_in(epoch)[rows]
        lines = corners[:, 0, None] + np.arange(height)  # (N, H)
        columns = corners[:, 1, None] + np.arange(width)  # (N, W)
        image_numbers = np.arange(number)
        # The three indices are broadcast to (N, H, W).
        return padded[image_numbers[:, None, None], lines[:, :, None], columns[:, None, :]]

    def _corners_in(self, epoch: int) -> np.ndarray:
        """Upper left corner (line, column) of each image within the padded one: (n, 2).

        They are drawn once per epoch, and kept for its other batches.
        """
        if epoch != self.epoch:
            random_numbers = np.random.default_rng([SHIFTS, self.seed, epoch])
            positions = 2 * self.limit + 1
            self.corners = random_numbers.integers(positions, size=(self.number_of_images, 2))
            self.epoch = epoch
        return self.corners


class Augmentation:
    """Random transforms of images at one size.

    Args:
        names: in any order `flip` (horizontal, probability 1/2), `crop` (random resized crop of 0.9
            to 1 of the area) and `randaugment` (Cubuk et al. 2020, arXiv 1909.13719: two operations
            of magnitude 9). They are applied in the order crop, flip, randaugment.
        size: side of the images, in pixels.
    """

    def __init__(self, names: Sequence[str], size: int, seed: int):
        """Build the transforms that `names` lists, such as ["flip", "crop"]; see the class."""
        # Not imported in jobs that don't augment.
        from torchvision.transforms import InterpolationMode, v2

        transforms = []
        if "crop" in names:
            transforms.append(
                v2.RandomResizedCrop(
                    size,
                    scale=(SMALLEST_CROP, 1.0),
                    interpolation=InterpolationMode.BICUBIC,
                    antialias=True,
                )
            )
        if "flip" in names:
            transforms.append(v2.RandomHorizontalFlip())
        if "randaugment" in names:
            transforms.append(v2.RandAugment(num_ops=2, magnitude=9))
        self.transform = v2.Compose(transforms)
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        """An image (3, size, size) uint8 as shown in an epoch; `row` identifies it."""
        sequence = np.random.SeedSequence([self.seed, epoch, row])
        (seed,) = sequence.generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed GPUs too, where dropout draws.
            torch.default_generator.manual_seed(int(seed))
            return self.transform(image)
