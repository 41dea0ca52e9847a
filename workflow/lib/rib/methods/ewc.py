"""Elastic weight consolidation: weights that are important to the pretrained model stay near it.

Importance is the diagonal of the pretrained model's Fisher information, on the family's pretraining
proxy (images that stand in for the pretraining data) or, without one, on the target. On the proxy
the workflow computes it once per model and seed, for the trainings on all targets.

Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3. Labels are sampled from the model's
softmax over its 1000 logits. The method ewc_empirical uses the images' labels and class logits:
the empirical Fisher, a different quantity (Kunstner et al. 2019, arXiv 1905.12558). The released
code of ImageNet-RIB uses no Fisher information: the method ewc_released.
"""

from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import Count, NonNegative
from rib.methods.base import Task
from rib.methods.l2_sp import L2StartingPoint, sum_of
from rib.models.fisher_information import fisher_diagonal


@dataclass(kw_only=True)
class ElasticWeightConsolidation(L2StartingPoint):
    """Minimise CE + weight / 2 * sum_i F_i (theta_i - start_i)^2.

    F_i = mean over x of (d log p(y|x) / d theta_i)^2.
    """

    fisher_information = True

    weight: NonNegative  # lambda in the paper
    fisher: Literal["sampled", "empirical"]  # y from the model's softmax, or the image's label
    fisher_images: Count  # maximum number of images for F, evenly spaced over the dataset

    def setup(self, task: Task) -> None:
        """Prepare for training: compute F unless the task has it."""
        super().setup(task)
        # F: a tensor in the shape of each parameter, in the order of `trainable`.
        if task.fisher is None:
            images = task.target
            if task.reference is not None:
                images = task.reference
            self.importance = fisher_diagonal(
                self.model, images, self.fisher, self.fisher_images, task.seed
            )
        else:
            self.importance = []
            for name, parameter in self.trainable():
                # A copy on the parameter's device and in its memory layout.
                importance = torch.empty_like(parameter).copy_(task.fisher[name])
                self.importance.append(importance)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """weight / 2 * sum_i F_i (theta_i - start_i)^2, which needs neither of the arguments."""
        weighted_distances = []
        for importance, (parameter, start) in zip(self.importance, self.anchors, strict=True):
            weighted_distances.append((importance * (parameter - start).square()).sum())
        return self.weight / 2 * sum_of(weighted_distances)
