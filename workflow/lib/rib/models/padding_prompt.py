"""Padding prompt: a trainable border added to an image, for visual prompting."""

import torch
from torch import Tensor, nn


class PaddingPrompt(nn.Module):
    """Four strips that are added to the borders of the normalised image.

    For images of side S and a border p pixels wide, top and bottom are (3, p, S), left and right (3, S - 2 p, p).
    """

    def __init__(self, *, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor):
        super().__init__()
        self.top, self.bottom, self.left, self.right = map(nn.Parameter, (top, bottom, left, right))

    @classmethod
    def of(cls, side: int, width: int, device: torch.device) -> "PaddingPrompt":
        """A prompt of zeros, `width` pixels wide, for images of `side` x `side` pixels."""
        row, column = (3, width, side), (3, side - 2 * width, width)
        strips = {"top": row, "bottom": row, "left": column, "right": column}
        return cls(**{name: torch.zeros(shape, device=device) for name, shape in strips.items()})

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) with the prompt added."""
        side, width = self.top.shape[2], self.top.shape[1]
        inner = self.left.new_zeros(3, side - 2 * width, side - 2 * width)
        middle = torch.cat([self.left, inner, self.right], dim=2)
        return images + torch.cat([self.top, middle, self.bottom], dim=1)
