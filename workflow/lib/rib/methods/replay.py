"""Replay: each step also rehearses a batch of the reference dataset, which stands for what pretraining saw.

Source: rehearsal as in Robins 1995 (Connection Science 7, 2) and experience replay in Rolnick et al. 2019
(arXiv 1811.11682), section 3, with the reference dataset as the memory.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from rib.methods import mechanism
from rib.methods._base import FineTuning, Task
from rib.models.class_logits import class_logits
from rib.models.device import autocast


@mechanism
class Replay(FineTuning):
    """Minimise CE on a batch of the target + weight * CE on as many images of the reference dataset.

    Args:
        weight: of the rehearsal, from 0.
    """

    def __init__(self, *, weight: float, **common):
        super().__init__(**common)
        if weight < 0:
            raise ValueError(f"weight is {weight}; give a number from 0")
        self.weight = weight

    def begin(self, task: Task) -> None:
        super().begin(task)
        if task.reference is None:
            raise ValueError("it needs the family's reference dataset, and there is none")

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        memory = self.task.reference
        # Another stream than any epoch's batches, and than the other parts of this batch.
        draws = np.random.default_rng([self.task.seed, self.step, int(rows[0]), 1])
        chosen = draws.choice(len(memory.inputs), size=min(len(rows), len(memory.inputs)), replace=False)
        with autocast(memory.inputs.device):
            recalled = self.model(memory.inputs[chosen])
        return self.weight * F.cross_entropy(class_logits(recalled.float(), memory.members), memory.labels[chosen])
