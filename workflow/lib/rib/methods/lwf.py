"""Learning without Forgetting: fine-tuning with distillation of the pretrained model's outputs.

Without augmentation the teacher sees the same images in every epoch, so its logits are computed once, unless the target
is too large.

Source: Li and Hoiem 2017 (arXiv 1606.09282), equation 2, in the form of Hinton et al. 2015 (arXiv 1503.02531),
section 2: the Kullback-Leibler divergence at temperature T times T^2, so that the scale of its gradient does not
depend on T. All 1000 logits are distilled. The released code of ImageNet-RIB (lib/regularization.py) distils only the
logits of the target's classes, without the factor T^2: the variant lwf_released.
"""

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.methods import NonNegative, Positive, algorithm
from rib.methods.base import FineTuning, Task
from rib.models.class_logits import class_logits
from rib.models.device import autocast
from rib.models.inputs import in_batches

TEACHER_BATCH = 64
MOST_STORED = (
    500_000  # images up to which teacher logits are stored (2 GB), not recomputed in every step
)


@algorithm
class LearningWithoutForgetting(FineTuning):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch."""

    temperature: Positive  # T
    weight: NonNegative  # of the distillation
    distil: Literal["all", "class"]  # 1000 logits, or the class logits of the target's label space

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.teacher_logits = pretrained_outputs(
            nn.Module.__call__, task, MOST_STORED, "teacher logits"
        )

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        pair = [self.teacher_logits(rows), logits]
        if self.distil == "class":
            pair = [class_logits(part, self.task.target.members) for part in pair]
        return self.weight * self.temperature**2 * divergence(*pair, self.temperature)


def pretrained_outputs(
    outputs: Callable[[nn.Module, Tensor], Tensor], task: Task, most: int, what: str
) -> Callable[[np.ndarray], Tensor]:
    """Function of rows of the target that returns `outputs` (N, d) of the network as it is now and their images.

    Of at most `most` images outputs are stored if there is no augmentation; `what` labels the progress bar.
    """
    teacher, inputs = task.model, task.target.inputs

    @torch.no_grad()
    def found(images: Tensor) -> Tensor:
        with autocast(inputs.device):
            return outputs(teacher, images).float()

    if len(inputs) <= most and not inputs.augmentation:
        stored = in_batches(found, inputs, TEACHER_BATCH, what)
        return lambda rows: stored[rows]
    teacher = copy.deepcopy(task.model)
    return lambda rows: found(inputs[rows])


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) of logits (N, K), mean over N."""
    teacher, student = (F.log_softmax(part / temperature, dim=1) for part in (teacher, student))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
