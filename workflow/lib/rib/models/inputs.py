"""From stored pixels to a network's input, normalised on the device."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rib.io import Progress


class Inputs:
    """A dataset's images as network inputs.

    Args:
        images: (n, H, W, 3) uint8, usually memory-mapped.
        mean: per RGB channel, in 0..1.
        std: per RGB channel, in 0..1.
        device: where batches go.
        rows: of `images`, the ones that count, in their order; all when None.
    """

    def __init__(
        self,
        images: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        rows: np.ndarray | None = None,
    ):
        self.images = images
        self.rows = rows
        self.device = device
        self.mean = torch.tensor(mean, device=device).mul(255).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).mul(255).view(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch of the images at the given places: (N, 3, H, W) float32, channels last in memory."""
        pixels = torch.from_numpy(np.array(self.images[rows if self.rows is None else self.rows[rows]]))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Inputs, batch_size: int, what: str) -> Tensor:
    """`function` over all images in order, concatenated: (n, ...); `what` names it in the progress."""
    result = None
    for start in Progress(range(0, len(inputs), batch_size), desc=what, unit="batch"):
        part = function(inputs[slice(start, start + batch_size)])
        if result is None:  # of its full size at once: joining parts at the end would take the memory twice
            result = part.new_empty(len(inputs), *part.shape[1:])
        result[start : start + len(part)] = part
    return result
