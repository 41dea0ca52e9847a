"""Replay: each step also rehearses a batch of the pretraining proxy.

The proxy is a set of images that stands in for the pretraining data.

Source: rehearsal as in Robins 1995 (Connection Science 7, 2) and experience replay in Rolnick et
al. 2019 (arXiv 1811.11682), section 3, with the pretraining proxy as the memory.
"""

import numpy as np
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from rib.methods import NonNegative
from rib.methods.base import FineTuning, Task
from rib.models.class_logits import class_logits
from rib.models.device import autocast

REPLAY_STREAM = 1  # stream of random numbers; epochs have another


@dataclass(kw_only=True)
class Replay(FineTuning):
    """Minimise CE on a batch of the target + weight * CE on as many images of the proxy."""

    weight: NonNegative

    def setup(self, task: Task) -> None:
        """Raise a ValueError if the family has no pretraining proxy."""
        super().setup(task)
        if task.reference is None:
            raise ValueError("it needs a pretraining proxy, but the family has none")
        self.proxy = task.reference

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """Weighted cross-entropy on random images of the proxy, as many as `rows`, a scalar.

        `logits` are the target's and not used: the network computes the proxy's logits here.
        """
        proxy = self.proxy
        # The first row is part of the seed: micro-batches of a step get different images.
        draws = np.random.default_rng([self.task.seed, self.step, int(rows[0]), REPLAY_STREAM])
        number_of_images = min(len(rows), len(proxy))
        proxy_rows = draws.choice(len(proxy), size=number_of_images, replace=False)
        labels = proxy.labels_of(proxy_rows)  # before the forward pass: the copy needn't wait
        with autocast(proxy.device):
            proxy_logits = self.model(proxy[proxy_rows])
        # From the network's outputs to the proxy's classes; `members` are each class's outputs.
        scores = class_logits(proxy_logits.float(), proxy.members)
        return self.weight * F.cross_entropy(scores, labels)
