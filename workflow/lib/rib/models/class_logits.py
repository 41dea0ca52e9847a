"""Class logits of a dataset from ImageNet logits, for both training and evaluation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rib.config.label_space import LabelSpace


def class_members(space: LabelSpace, device: torch.device) -> Tensor:
    """The network outputs of each class of a label space, for `class_logits`.

    Returns:
        (C, K) int64, with K the size of the largest class. A smaller class is padded with its
        lowest index, which doesn't change the maximum.
    """
    return padded(space.indices, device)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Rows as a table, int64, in which shorter ones are padded with their first number.

    [[3], [8, 5]] becomes [[3, 3], [8, 5]].
    """
    width = max(len(row) for row in rows)
    padded_rows = []
    for row in rows:
        padding = [row[0]] * (width - len(row))
        padded_rows.append([*row, *padding])
    return torch.tensor(padded_rows, dtype=torch.int64, device=device)


def class_logits(logits: Tensor, members: Tensor) -> Tensor:
    """Logits (N, C) of classes from logits (N, 1000): the maximum over a class's indices.

    A row of members [281, 282] means that a class is outputs 281 and 282 of the network; its logit
    is the larger of their two logits.

    With one index per class this is the usual masking of logits (ImageNet-A, -R). With several, an
    image is correct if the best of the allowed indices wins, and the gradient goes to that index;
    of ties to the lowest one.

    Source: maximum per class as in mlfoundations/wise-ft, src/datasets/objectnet.py.

    Args:
        members: (C, K), from `class_members`.

    Raises:
        ValueError: A tensor has another number of dimensions.
    """
    if logits.ndim != 2 or members.ndim != 2:
        raise ValueError(
            f"expected (N, 1000) logits and (C, K) members, got {logits.shape} and {members.shape}"
        )
    logits_of_members = logits[:, members]  # (N, C, K)
    return logits_of_members.max(dim=2).values  # of the first of ties
