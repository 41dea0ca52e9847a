"""L2-SP: fine-tuning with a penalty on the squared distance from the starting weights.

Source: Li, Grandvalet and Davoine 2018 (arXiv 1802.01483), section 3, the L2-SP penalty. Every weight has a start here, the head
too, so the paper's second term (plain L2 on a new head) has nothing to act on. The released code of ImageNet-RIB
calls this EWC (lib/regularization.py: weight 1 without the factor 1/2): that is ewc_released, weight 2.
"""

import numpy as np
from torch import Tensor

from rib.methods import mechanism
from rib.methods._base import FineTuning, Task, anchored


@mechanism
class L2StartingPoint(FineTuning):
    """Minimise CE + weight / 2 * sum_i (theta_i - start_i)^2.

    Args:
        weight: alpha of the paper, from 0.
    """

    def __init__(self, *, weight: float, **common):
        super().__init__(**common)
        if weight < 0:
            raise ValueError(f"weight is {weight}; give a number from 0")
        self.weight = weight

    def begin(self, task: Task) -> None:
        super().begin(task)
        self.anchors = anchored(self.trainable())

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        return self.weight / 2 * sum((parameter - start).square().sum() for parameter, start in self.anchors)
