"""Class logits of a dataset from ImageNet logits, for both training and evaluation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rib.config.label_space import LabelSpace


def class_members(space: LabelSpace, device: torch.device) -> Tensor:
    """Index table of a label space for `class_logits`: (C, K) int64, with K the size of the largest class."""
    return padded(space.indices, device)  # with the lowest index, which doesn't change the maximum


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows as a table, int64, in which shorter ones are padded with their first value."""
    width = max(map(len, rows))
    return torch.tensor(
        [[*row, *row[:1] * (width - len(row))] for row in rows], dtype=torch.int64, device=device
    )


def class_logits(logits: Tensor, members: Tensor) -> Tensor:
    """Logits (N, C) of classes from logits (N, 1000): the maximum over a class's indices, ties to the lowest index.

    With one index per class this is the usual masking of logits (ImageNet-A, -R). With several, an image is correct if
    the best of the allowed indices wins, and the gradient goes to that index. `members` is from `class_members`.

    Source: maximum per class as in mlfoundations/wise-ft, src/datasets/objectnet.py.
    """
    if logits.ndim != 2 or members.ndim != 2:
        raise ValueError(
            f"expected (N, 1000) logits and (C, K) members, got {logits.shape} and {members.shape}"
        )
    return (
        logits[:, members].max(dim=2).values
    )  # (N, C, K) -> (N, C); max returns the first of ties
