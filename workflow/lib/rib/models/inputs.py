"""Network inputs from stored pixels, normalised on the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rib.base.progress import Progress
from rib.models.augmentation import Augmentation


class Inputs:
    """A dataset's images (n, H, W, 3) uint8, usually memory-mapped, as network inputs.

    Mean and std are per RGB channel, in 0..1. Only the given rows are used, in order; None for all.

    Attributes:
        augmentation: random transforms in training; None for none.
        epoch: current epoch of training, from 0, in which images are augmented; None outside of training.
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
        self.images, self.rows, self.device, self.augmentation = images, rows, device, augmentation
        self.epoch: int | None = None
        self.mean, self.std = (torch.tensor(part, device=device).mul(255).view(1, 3, 1, 1) for part in (mean, std))

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch of the given rows: (N, 3, H, W) float32, channels last in memory."""
        pixels = torch.from_numpy(np.array(self.images[rows if self.rows is None else self.rows[rows]]))
        if self.augmentation and self.epoch is not None:
            which = np.arange(len(self.images))[rows] if self.rows is None else self.rows[rows]
            pairs = zip(pixels.permute(0, 3, 1, 2), which.tolist(), strict=True)
            pixels = torch.stack([self.augmentation(image, self.epoch, row) for image, row in pairs])
            pixels = pixels.permute(0, 2, 3, 1).contiguous()
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        inputs: the n images.
        labels: (n,) int64 on the device, class indices.
        members: (C, K) int64 on the device, the network outputs of each class (see rib.models.class_logits).
    """

    inputs: Inputs
    labels: Tensor
    members: Tensor


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Inputs | Tensor, batch_size: int, what: str) -> Tensor:
    """Outputs of `function` for all images in order: (n, ...); `what` labels the progress bar."""
    result = None
    for start in Progress(range(0, len(inputs), batch_size), desc=what, unit="batch"):
        part = function(inputs[slice(start, start + batch_size)])
        if result is None:  # allocated at full size, since concatenating at the end would double the memory
            result = part.new_empty(len(inputs), *part.shape[1:])
        result[start : start + len(part)] = part
    return result
