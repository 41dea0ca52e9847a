"""Learning without Forgetting: fine-tuning with distillation of the pretrained model's outputs.

Without augmentation the teacher's logits are computed once; many are kept in the host's memory, in
fp16, and too many are computed in each step.

Source: Li and Hoiem 2017 (arXiv 1606.09282), equation 2, in the form of Hinton et al. 2015
(arXiv 1503.02531), section 2: the Kullback-Leibler divergence at temperature T, times T^2, which
makes the scale of its gradient independent of T. All 1000 logits are distilled. The released code
of ImageNet-RIB (lib/regularization.py) distils only the logits of the target's classes, without the
factor T^2, as does the method lwf_released.
"""

from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import NonNegative, Positive
from rib.methods._distil import Distillation, divergence
from rib.methods.base import Task
from rib.models.class_logits import class_logits
from rib.models.network import Classifier


@dataclass(kw_only=True)
class LearningWithoutForgetting(Distillation):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    The divergence is a mean over the batch.
    """

    large_outputs_on_host = True

    temperature: Positive  # T
    weight: NonNegative
    distil: Literal["all", "class"]  # 1000 logits, or the class logits of the target's label space

    def setup(self, task: Task) -> None:
        """Make the network as it is now the teacher."""
        super().setup(task)
        self.teacher_logits = self.pretrained_outputs(_logits, "teacher logits")

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """Weighted divergence of the student's logits (N, outputs) from the teacher's."""
        teacher = self.teacher_logits(rows)
        student = logits
        if self.distil == "class":
            teacher = class_logits(teacher, self.images.members)
            student = class_logits(student, self.images.members)
        distilled = divergence(teacher, student, self.temperature)
        return self.weight * self.temperature**2 * distilled


def _logits(network: Classifier, images: Tensor) -> Tensor:
    """Logits (N, outputs) of images, for `Distillation.pretrained_outputs`."""
    logits: Tensor = network(images)
    return logits
