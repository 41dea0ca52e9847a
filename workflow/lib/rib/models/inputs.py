"""Network inputs from stored pixels, normalised on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rib.base.progress import Progress
from rib.data.prepared import PreparedDataset
from rib.models.augmentation import Augmentation
from rib.models.class_logits import class_members


class Inputs:
    """A dataset's images (n, H, W, 3) uint8, usually memory-mapped, as network inputs.

    Mean and std are per RGB channel, in 0..1. Only the given rows are used, in order; None for all. The augmentation
    (None for none) transforms images in training.
    """

    def __init__(
        self,
        images: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        rows: np.ndarray | None = None,
        augmentation: Augmentation | None = None,
    ):
        self.images, self.device, self.augmentation = images, device, augmentation
        self.rows = np.arange(len(images)) if rows is None else rows
        self.epoch: int | None = (
            None  # of training, from 0, in which images are augmented; None outside of training
        )
        self.mean, self.std = (
            torch.tensor(part, device=device).mul(255).view(1, 3, 1, 1) for part in (mean, std)
        )

    @classmethod
    def of(cls, dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> "Inputs":
        """A dataset's images, normalised by a model's preprocessing."""
        return cls(
            dataset.images, preprocessing["mean"], preprocessing["std"], device, dataset.rows
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch of the given rows: (N, 3, H, W) float32, channels last in memory."""
        rows = self.rows[rows]
        pixels = torch.from_numpy(np.asarray(self.images[rows]))
        if self.augmentation and self.epoch is not None:
            pairs = zip(pixels.permute(0, 3, 1, 2), rows.tolist(), strict=True)
            pixels = torch.stack(
                [self.augmentation(image, self.epoch, row) for image, row in pairs]
            )
            pixels = pixels.permute(0, 2, 3, 1).contiguous()
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class Images:
    """Labelled images, on the device."""

    inputs: Inputs  # the n images
    labels: Tensor  # (n,) int64, class indices
    members: Tensor  # (C, K) int64, the network outputs of each class (see rib.models.class_logits)

    @classmethod
    def of(cls, dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> "Images":
        """A dataset's images and labels, prepared for a network on a device."""
        inputs, labels = (
            Inputs.of(dataset, preprocessing, device),
            torch.from_numpy(dataset.labels).to(device),
        )
        return cls(inputs, labels, class_members(dataset.space, device))


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], inputs: Inputs | Tensor, batch_size: int, what: str
) -> Tensor:
    """Outputs of `function` for all images in order: (n, ...); `what` labels the progress bar."""
    result = None
    for start in Progress(range(0, len(inputs), batch_size), desc=what, unit="batch"):
        part = function(inputs[slice(start, start + batch_size)])
        if (
            result is None
        ):  # allocated at full size, since concatenating at the end would double the memory
            result = part.new_empty(len(inputs), *part.shape[1:])
        result[start : start + len(part)] = part
    return result
