"""Learning without Forgetting: fine-tuning that also distils the pretrained model's outputs.

The teacher sees the same images in every epoch, so its logits are computed once.

Source: Li and Hoiem 2017 (arXiv 1606.09282), equation 2, in the form of Hinton et al. 2015 (arXiv 1503.02531),
section 2: the Kullback-Leibler divergence at temperature T times T^2, so that its gradient's scale does not
depend on T. All 1000 logits are distilled, not only those of the target's classes.
"""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from rib.methods import mechanism
from rib.methods._base import FineTuning, in_batches
from rib.models.device import autocast
from rib.models.inputs import Inputs

TEACHER_BATCH = 64


@mechanism
class LearningWithoutForgetting(FineTuning):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch.

    Args:
        temperature: T, above 0.
        weight: of the distillation, from 0.
    """

    def __init__(self, *, lr: float, batch_norm: str, temperature: float, weight: float):
        super().__init__(lr=lr, batch_norm=batch_norm)
        self.temperature = temperature
        self.weight = weight

    def begin(self, model: nn.Module, inputs: Inputs) -> None:
        super().begin(model, inputs)

        def teacher(images: Tensor) -> Tensor:
            with autocast(inputs.device):
                return model(images).float()

        self.teacher_logits = in_batches(teacher, inputs, TEACHER_BATCH).clone()  # (n, 1000)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        teacher = F.log_softmax(self.teacher_logits[rows] / self.temperature, dim=1)
        student = F.log_softmax(logits / self.temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * divergence
