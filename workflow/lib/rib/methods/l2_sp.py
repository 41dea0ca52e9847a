"""L2-SP: fine-tuning with a penalty on the squared distance from the starting weights.

Source: Li, Grandvalet and Davoine 2018 (arXiv 1802.01483), section 3, the L2-SP penalty. The
paper's second term, plain L2 on a new head, doesn't apply, since the head is pretrained too. The
released code of ImageNet-RIB calls this EWC (lib/regularization.py: weight 1 without the factor
1/2), which is the method ewc_released, with weight 2.
"""

from collections.abc import Sequence

import numpy as np
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import NonNegative
from rib.methods.base import FineTuning, Task


@dataclass(kw_only=True)
class L2StartingPoint(FineTuning):
    """Minimise CE + weight / 2 * sum_i (theta_i - start_i)^2."""

    weight: NonNegative  # alpha in the paper

    def setup(self, task: Task) -> None:
        """Copy the parameters' starting values."""
        super().setup(task)
        self.anchors = []  # pairs of a trained parameter and its start
        for _, parameter in self.trainable():
            start = parameter.detach().clone()
            self.anchors.append((parameter, start))

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """weight / 2 * sum_i (theta_i - start_i)^2, which needs neither of the arguments."""
        squared_distances = [
            (parameter - start).square().sum() for parameter, start in self.anchors
        ]
        return self.weight / 2 * sum_of(squared_distances)


def sum_of(scalars: Sequence[Tensor]) -> Tensor:
    """Sum of at least one scalar, with gradients; added in order, always with the same rounding."""
    first, *others = scalars
    return sum(others, start=first)
