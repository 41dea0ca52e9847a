"""Random transforms of training images: shifts, and others by torchvision.

Random numbers depend on the seed, the epoch and the image, not on the batch. A network and its
teacher can read the same image, and batches, resuming and the number of jobs change nothing. The
prepared images are already resized and cropped as for evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Fraction of the area. Source: open_clip and wise-ft, the training transform of CLIP models.
SMALLEST_CROP = 0.9


SHIFT_STREAM = 1  # stream of random numbers; the order of images has another


class Shifts:
    """Random shifts of pretraining images, filled with the pixels of the edge.

    A shift depends on seed, epoch and image, not on the batch.

    Args:
        limit: largest shift in each direction, in pixels.
        number_of_images: number of the dataset's stored images; training may use only some.
    """

    def __init__(self, limit: int, number_of_images: int, seed: int):
        self.limit = limit
        self.number_of_images = number_of_images
        self.seed = seed
        self.epoch: int | None = None
        self.corners = np.zeros((number_of_images, 2), np.int64)

    def __call__(self, images: np.ndarray, epoch: int, rows: np.ndarray) -> np.ndarray:
        """Images (N, H, W, 3), shifted; `rows` (N,) are their positions in the stored dataset."""
        number, height, width, _ = images.shape
        border = (self.limit, self.limit)
        padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode="edge")
        # A shifted image is a window of the padded image, at a random place.
        corners = self._corners_in(epoch)[rows]
        lines = corners[:, 0, None] + np.arange(height)  # (N, H)
        columns = corners[:, 1, None] + np.arange(width)  # (N, W)
        image_numbers = np.arange(number)
        # The three index arrays are broadcast to (N, H, W).
        return padded[image_numbers[:, None, None], lines[:, :, None], columns[:, None, :]]

    def _corners_in(self, epoch: int) -> np.ndarray:
        """Where in its padded image each stored image's window begins: (line, column), (n, 2)."""
        # Drawn once an epoch, and kept for its other batches.
        if epoch != self.epoch:
            random_numbers = np.random.default_rng([SHIFT_STREAM, self.seed, epoch])
            positions = 2 * self.limit + 1
            self.corners = random_numbers.integers(positions, size=(self.number_of_images, 2))
            self.epoch = epoch
        return self.corners


class Augmentation:
    """Random transforms of training images.

    Each image has its own random numbers, so batches and resuming change nothing.

    Args:
        transform: from an image (3, H, W) uint8 to another; it draws from torch's generator.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], seed: int):
        self.transform = transform
        self.seed = seed

    def __call__(self, image: Tensor, epoch: int, row: int) -> Tensor:
        """An image (3, H, W) uint8, transformed; `row` is its position in the stored dataset."""
        sequence = np.random.SeedSequence([self.seed, epoch, row])
        (seed,) = sequence.generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the GPUs, and so change dropout there.
            torch.default_generator.manual_seed(int(seed))
            return self.transform(image)


def recipe_transform(names: Sequence[str], size: int) -> Callable[[Tensor], Tensor]:
    """The augmentation of a training recipe, in the order crop, flip, randaugment.

    Args:
        names: any of `flip` (horizontal, probability 1/2), `crop` (random resized crop of 0.9 to 1
            of the area) and `randaugment` (Cubuk et al. 2020, arXiv 1909.13719: two operations of
            magnitude 9), in any order.
        size: side of the images, in pixels.
    """
    # Imported here, since most jobs don't augment.
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
    """The augmentation of an entry of augmentations.yaml: 0 to `most` transforms of each image.

    Each number from 0 to `most` is equally likely, and so is each transform; their order is random.

    Args:
        transforms: arguments of each transform, such as {"invert": {}, "noise": {"sigma": 0.1}}.
    """
    from torchvision.transforms import InterpolationMode, v2

    # p=1.0, since whether a transform is applied is drawn below.
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
    random_transforms: list[Callable[[Tensor], Tensor]] = []
    # In a fixed order: which transforms are drawn must not depend on the order in the catalogue.
    for name, transform_class in class_of_name.items():
        if name not in transforms:
            continue
        arguments = dict(transforms[name])
        if "interpolation" in arguments:
            arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
        transform = transform_class(**arguments)
        if name == "noise":  # older versions of torchvision add noise only to fractions
            to_fractions = v2.ToDtype(torch.float32, scale=True)
            to_bytes = v2.ToDtype(torch.uint8, scale=True)
            transform = v2.Compose([to_fractions, transform, to_bytes])
        random_transforms.append(transform)

    def transform_image(image: Tensor) -> Tensor:
        """Apply none to `most` of the transforms, in random order, to an image (3, H, W) uint8."""
        number = int(torch.randint(most + 1, ()))
        for i in torch.randperm(len(random_transforms))[:number].tolist():
            image = random_transforms[i](image)
        return image

    return transform_image
