"""From stored pixels to a network's input, normalised on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Inputs:
    """A dataset's images as network inputs.

    Args:
        images: (n, H, W, 3) uint8, usually memory-mapped.
        mean: per RGB channel, in 0..1.
        std: per RGB channel, in 0..1.
        device: where batches go.
    """

    def __init__(self, images: np.ndarray, mean: Sequence[float], std: Sequence[float], device: torch.device):
        self.images = images
        self.device = device
        self.mean = torch.tensor(mean, device=device).mul(255).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).mul(255).view(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        """Batch of the given rows: (N, 3, H, W) float32, channels last in memory."""
        pixels = torch.from_numpy(np.array(self.images[rows]))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels.float().sub_(self.mean).div_(self.std)
