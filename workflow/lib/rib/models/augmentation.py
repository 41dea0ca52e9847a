"""Random transforms of training images: shifts, and others by torchvision.

Random numbers depend on the seed, the epoch and the image, not on the batch, so that an image can
be read twice (by a network and its teacher), and batches, resuming and the number of jobs change
nothing. Images are cropped from the prepared array, which is already resized and cropped as for
evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

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
    """Random transforms of images, each image with random numbers of its own.

    Args:
        transform: an image (3, H, W) uint8 to another of the same shape, with torch's generator.
        seed: of the random numbers.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], seed: int):
        """Arguments are those of the class."""
        self.transform = transform
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        """An image (3, H, W) uint8 as shown in an epoch; `row` identifies it."""
        sequence = np.random.SeedSequence([self.seed, epoch, row])
        (seed,) = sequence.generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed GPUs too, where dropout draws.
            torch.default_generator.manual_seed(int(seed))
            return self.transform(image)


def recipe_transform(names: Sequence[str], size: int) -> Callable[[Tensor], Tensor]:
    """The transforms of a recipe, in the order crop, flip, randaugment.

    Args:
        names: in any order `flip` (horizontal, probability 1/2), `crop` (random resized crop of 0.9
            to 1 of the area) and `randaugment` (Cubuk et al. 2020, arXiv 1909.13719: two operations
            of magnitude 9).
        size: side of the images, in pixels.
    """
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
    return v2.Compose(transforms)


def drawn_transforms(
    most: int, transforms: Mapping[str, Mapping[str, Any]]
) -> Callable[[Tensor], Tensor]:
    """A transform that applies none to `most` of several transforms, in random order.

    Each number is as likely, and each transform.

    Args:
        most: largest number of transforms of an image.
        transforms: arguments by name of transform, such as {"invert": {}, "noise": {"sigma": 0.1}},
            as in the catalogue (rib.config.augmentation_entries.Transforms).
    """
    from torchvision.transforms import InterpolationMode, v2

    # The classes that draw whether they change an image (p) always do, once they are drawn here.
    class_of_name = {
        "affine": v2.RandomAffine,
        "colour_jitter": v2.ColorJitter,
        "invert": partial(v2.RandomInvert, p=1.0),
        "posterise": partial(v2.RandomPosterize, p=1.0),
        "solarise": partial(v2.RandomSolarize, p=1.0),
        "blur": v2.GaussianBlur,
        "noise": v2.GaussianNoise,
        "erasing": partial(v2.RandomErasing, p=1.0),
        "perspective": partial(v2.RandomPerspective, p=1.0),
    }
    made_transforms: list[Callable[[Tensor], Tensor]] = []
    # In an order of our own, on which random numbers depend, not in the one of the entry.
    for name, transform_class in class_of_name.items():
        if name not in transforms:
            continue
        arguments = dict(transforms[name])
        if "interpolation" in arguments:
            arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
        transform = transform_class(**arguments)
        if name == "noise":  # which older versions of torchvision add to fractions alone
            to_fractions = v2.ToDtype(torch.float32, scale=True)
            to_bytes = v2.ToDtype(torch.uint8, scale=True)
            transform = v2.Compose([to_fractions, transform, to_bytes])
        made_transforms.append(transform)

    def transform_image(image: Tensor) -> Tensor:
        number = int(torch.randint(most + 1, ()))
        for i in torch.randperm(len(made_transforms))[:number].tolist():
            image = made_transforms[i](image)
        return image

    return transform_image
