"""Logits of a dataset's classes from ImageNet logits, for training and evaluation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rib.catalog.label_space import LabelSpace


def class_members(space: LabelSpace, device: torch.device) -> Tensor:
    """Network outputs of each class of a label space, (C, K) int64.

    K is the size of the largest class. A smaller class is padded with its first output, which
    doesn't change the maximum: classes [[3], [5, 8]] give [[3, 3], [5, 8]].
    """
    return padded(space.indices, device)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows of one length, padded with their first number: [[3], [8, 5]] gives [[3, 3], [8, 5]]."""
    width = max(len(row) for row in rows)
    padded_rows = []
    for row in rows:
        padding = [row[0]] * (width - len(row))
        padded_rows.append([*row, *padding])
    return torch.tensor(padded_rows, dtype=torch.int64, device=device)


def class_logits(logits: Tensor, members: Tensor) -> Tensor:
    """Logits (N, C) of classes from logits (N, outputs): the maximum over each class's outputs.

    With one output per class this is the usual masking of logits (ImageNet-A, -R). With several,
    the largest gets the gradient; among ties it is the first.

    Source: maximum per class as in mlfoundations/wise-ft, src/datasets/objectnet.py.

    Args:
        members: (C, K) outputs of each class; a row [281, 282] is a class with two outputs.
    """
    if logits.ndim != 2 or members.ndim != 2:
        raise ValueError(
            f"expected (N, 1000) logits and (C, K) members, got {logits.shape} and {members.shape}"
        )
    logits_of_members = logits[:, members]  # (N, C, K)
    return logits_of_members.max(dim=2).values
