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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.methods import algorithm
from rib.methods.base import FineTuning, Task
from rib.models.class_logits import class_logits
from rib.models.device import autocast
from rib.models.inputs import in_batches

TEACHER_BATCH = 64
MOST_STORED = 500_000  # images up to which teacher logits are stored (2 GB), not recomputed in every step


@algorithm
class LearningWithoutForgetting(FineTuning):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch.

    Args:
        temperature: T, above 0.
        weight: weight of the distillation, at least 0.
        distil: `all` 1000 logits, or the `class` logits of the target's label space.
    """

    def __init__(self, *, temperature: float, weight: float, distil: str, **common):
        super().__init__(**common)
        if temperature <= 0 or weight < 0:
            raise ValueError(f"temperature is {temperature} and weight {weight}; set above 0 and at least 0")
        if distil not in ("all", "class"):
            raise ValueError(f"distil is '{distil}'; set 'all' or 'class'")
        self.temperature, self.weight, self.distil = temperature, weight, distil

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.teacher_logits = teacher_outputs(task, nn.Module.__call__, "teacher logits")  # (n, 1000)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        with torch.no_grad():
            pair = [self.teacher_logits(rows), logits]
        if self.distil == "class":
            pair = [class_logits(part, self.task.target.members) for part in pair]
        teacher, student = (F.log_softmax(part / self.temperature, dim=1) for part in pair)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * divergence


def teacher_outputs(
    task: Task, function: Callable[[nn.Module, Tensor], Tensor], what: str
) -> Callable[[np.ndarray], Tensor]:
    """Outputs of the network as it is now, by rows of the target; `what` names them.

    They are computed now, or by a copy of the network when they are needed if images are augmented or too many.
    """
    inputs, teacher = task.target.inputs, task.model

    def outputs(images: Tensor) -> Tensor:
        with autocast(inputs.device):
            return function(teacher, images).float()

    if len(inputs) <= MOST_STORED and not inputs.augmentation:
        stored = in_batches(outputs, inputs, TEACHER_BATCH, what)
        return lambda rows: stored[rows]
    teacher = copy.deepcopy(task.model)
    return lambda rows: outputs(inputs[rows])
