"""Network inputs from stored pixels, normalised on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rib.base.progress import Progress
from rib.data.prepared import EncodedImages, PreparedDataset
from rib.models.augmentation import Augmentation, Shifts
from rib.models.class_logits import class_members


class Inputs:
    """A dataset's images (n, H, W, 3) uint8, usually memory-mapped, as network inputs.

    Args:
        mean, std: per RGB channel, in 0..1.
        rows: those of the images that are used, in this order; None for all.
        augmentation: transforms images in training; None for none.
        shifts: shift images in training, before they are augmented; None for none.
    """

    def __init__(
        self,
        images: np.ndarray | EncodedImages,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        rows: np.ndarray | None = None,
        augmentation: Augmentation | None = None,
        shifts: Shifts | None = None,
    ):
        """Arguments are those of the class."""
        self.images = images
        self.device = device
        self.augmentation = augmentation
        self.shifts = shifts
        if rows is None:
            rows = np.arange(len(images))
        self.rows = rows
        # Of training, from 0, in which images are augmented; None outside of training.
        self.epoch: int | None = None
        self.mean = _per_channel(mean, device)
        self.std = _per_channel(std, device)

    @classmethod
    def of(cls, dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> "Inputs":
        """A dataset's images, normalised by a model's preprocessing."""
        assert dataset.images is not None  # of a dataset whose pixels are read
        return cls(
            dataset.images, preprocessing["mean"], preprocessing["std"], device, dataset.rows
        )

    @property
    def side(self) -> int:
        """Side of the stored images, in pixels."""
        first_image = self.images[:1]
        return int(first_image.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch of the given rows: (N, 3, H, W) float32, channels last in memory."""
        rows_of_images = self.rows[rows]
        stored_pixels = np.asarray(self.images[rows_of_images])
        if self.shifts and self.epoch is not None:
            stored_pixels = self.shifts(stored_pixels, self.epoch, rows_of_images)
        pixels = torch.from_numpy(stored_pixels)
        if self.augmentation and self.epoch is not None:
            pixels = _augmented(pixels, rows_of_images, self.augmentation, self.epoch)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)


def _augmented(pixels: Tensor, rows: np.ndarray, augmentation: Augmentation, epoch: int) -> Tensor:
    """Images (N, H, W, 3) uint8, which are these rows of a dataset, as shown in an epoch."""
    augmented = []
    for image, row in zip(pixels.permute(0, 3, 1, 2), rows.tolist(), strict=True):
        augmented.append(augmentation(image, epoch, row))
    return torch.stack(augmented).permute(0, 2, 3, 1).contiguous()


def _per_channel(fractions: Sequence[float], device: torch.device) -> Tensor:
    """A number per RGB channel, in 0..1, as (1, 3, 1, 1) on the scale of pixels, 0..255."""
    return torch.tensor(fractions, device=device).mul(255).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Images:
    """Labelled images, on the device."""

    inputs: Inputs  # the n images
    labels: Tensor  # (n,) int64, class indices
    members: Tensor  # (C, K) int64, the network outputs of each class (see rib.models.class_logits)

    @classmethod
    def of(cls, dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> "Images":
        """A dataset's images and labels, prepared for a network on a device."""
        return cls(
            inputs=Inputs.of(dataset, preprocessing, device),
            labels=torch.from_numpy(dataset.labels).to(device),
            members=class_members(dataset.space, device),
        )


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], inputs: Inputs | Tensor, batch_size: int, title: str
) -> Tensor:
    """Outputs (n, ...) of a function for all images in their order, computed batch by batch.

    Args:
        function: gives the outputs (N, ...) of a batch of N images.
        inputs: the n images.
        batch_size: images per call of the function.
        title: of the progress bar.
    """
    outputs: Tensor | None = None
    for start in Progress(range(0, len(inputs), batch_size), desc=title, unit="batch"):
        batch_outputs = function(inputs[slice(start, start + batch_size)])
        if outputs is None:
            # Made at full size, since concatenating the batches at the end would need twice the
            # memory. Only the first outputs show their shape and type.
            outputs = batch_outputs.new_empty(len(inputs), *batch_outputs.shape[1:])
        outputs[start : start + len(batch_outputs)] = batch_outputs
    assert outputs is not None  # there is at least one image
    return outputs
