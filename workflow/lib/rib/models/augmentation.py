"""Random transforms of training images: shifts, and others by torchvision.

Random numbers depend on the seed, the epoch and the image, not on the batch. A network and its
teacher can read the same image, and batches, resuming and the number of jobs change nothing. The
prepared images are already resized and cropped as for evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rib.base.errors import UserError

# Fraction of the area. Source: open_clip and wise-ft, the training transform of CLIP models.
SMALLEST_CROP = 0.9
SIDE_OF_TRIAL = 32  # of the image with which the arguments of a transform are tried, in pixels

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
    most: int, transforms: Sequence[tuple[str, Mapping[str, Any]]]
) -> Callable[[Tensor], Tensor]:
    """The augmentation of an entry of augmentations.yaml: 0 to `most` transforms of each image.

    Each number from 0 to `most` is equally likely, and so is each transform; their order is random.

    Args:
        transforms: classes of torchvision.transforms.v2 with their arguments, such as
            [("RandomInvert", {"p": 1.0}), ("GaussianNoise", {"sigma": 0.1})].

    Raises:
        UserError: torchvision has no such transform, or refuses an argument.
    """
    random_transforms = [_transform(name, arguments) for name, arguments in transforms]

    def transform_image(image: Tensor) -> Tensor:
        """Apply none to `most` of the transforms, in random order, to an image (3, H, W) uint8."""
        number = int(torch.randint(most + 1, ()))
        for i in torch.randperm(len(random_transforms))[:number].tolist():
            image = random_transforms[i](image)
        return image

    return transform_image


def _transform(name: str, arguments: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """A transform of images (3, H, W) uint8; a UserError if torchvision can't make or use it."""
    from torchvision.transforms import InterpolationMode, v2

    where = f"augmentations.yaml, transforms.{name}"
    transform_class = getattr(v2, name, None)
    if not isinstance(transform_class, type) or not issubclass(transform_class, v2.Transform):
        raise UserError(f"{where}: torchvision.transforms.v2 has no such class; choose another.")
    made_arguments = dict(arguments)
    image = torch.zeros((3, SIDE_OF_TRIAL, SIDE_OF_TRIAL), dtype=torch.uint8)
    try:
        if "interpolation" in arguments:
            made_arguments["interpolation"] = InterpolationMode(arguments["interpolation"])
        transform: Callable[[Tensor], Tensor] = transform_class(**made_arguments)
        if name == "GaussianNoise":  # older versions of torchvision add noise only to fractions
            to_fractions = v2.ToDtype(torch.float32, scale=True)
            to_bytes = v2.ToDtype(torch.uint8, scale=True)
            transform = v2.Compose([to_fractions, transform, to_bytes])
        # Some arguments are used before they are checked.
        with torch.random.fork_rng(devices=[]):
            transformed = transform(image)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: {reason}; correct its arguments.") from error
    if transformed.shape != image.shape or transformed.dtype != image.dtype:
        raise UserError(f"{where} changes the size or type of images; choose another.")
    return transform
