"""Padding prompt: a trainable border added to an image, for visual prompting."""

import torch
from torch import Tensor, nn


class PaddingPrompt(nn.Module):
    """Four strips that are added to the borders of the normalised image.

    For images of side S and a border p pixels wide, top and bottom are (3, p, S), left and right
    (3, S - 2 p, p).
    """

    def __init__(self, *, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor):
        super().__init__()
        self.top = nn.Parameter(top)
        self.bottom = nn.Parameter(bottom)
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)

    @classmethod
    def of(cls, side: int, width: int, device: torch.device) -> "PaddingPrompt":
        """A prompt of zeros, `width` pixels wide, for images of `side` x `side` pixels."""
        horizontal = (3, width, side)
        vertical = (3, side - 2 * width, width)
        return cls(
            top=torch.zeros(horizontal, device=device),
            bottom=torch.zeros(horizontal, device=device),
            left=torch.zeros(vertical, device=device),
            right=torch.zeros(vertical, device=device),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) plus the prompt."""
        _, width, side = self.top.shape
        inner_side = side - 2 * width
        interior = self.left.new_zeros(3, inner_side, inner_side)
        middle = torch.cat([self.left, interior, self.right], dim=2)
        prompt = torch.cat([self.top, middle, self.bottom], dim=1)
        return images + prompt
