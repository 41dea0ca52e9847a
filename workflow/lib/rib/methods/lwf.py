"""Learning without Forgetting: fine-tuning with distillation of the pretrained model's outputs.

Without augmentation the teacher's logits are computed once, unless the target is too large.

Source: Li and Hoiem 2017 (arXiv 1606.09282), equation 2, in the form of Hinton et al. 2015
(arXiv 1503.02531), section 2: the Kullback-Leibler divergence at temperature T, times T^2, which
makes the scale of its gradient independent of T. All 1000 logits are distilled. The released code
of ImageNet-RIB (lib/regularization.py) distils only the logits of the target's classes, without the
factor T^2, as does the method lwf_released.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from rib.config.stored_outputs import MOST_STORED
from rib.methods import NonNegative, Positive
from rib.methods.base import FineTuning, Task
from rib.models.class_logits import class_logits
from rib.models.device import autocast
from rib.models.images import in_batches, rows_of
from rib.models.network import Classifier

TEACHER_BATCH = 64

# Outputs (N, d) of a network for images (N, 3, H, W).
NetworkFunction = Callable[[Classifier, Tensor], Tensor]


@dataclass(kw_only=True)
class LearningWithoutForgetting(FineTuning):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    The divergence is a mean over the batch.
    """

    temperature: Positive  # T
    weight: NonNegative
    distil: Literal["all", "class"]  # 1000 logits, or the class logits of the target's label space

    def setup(self, task: Task) -> None:
        """Make the network as it is now the teacher."""
        super().setup(task)
        self.teacher_logits = pretrained_outputs(_logits, task, MOST_STORED, "teacher logits")

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
    """Logits (N, outputs) of images, for `pretrained_outputs`."""
    logits: Tensor = network(images)
    return logits


def pretrained_outputs(
    function: NetworkFunction, task: Task, max_stored: int, title: str
) -> Callable[[np.ndarray], Tensor]:
    """Function from rows (N,) of the target to outputs (N, d) of the network before training.

    The outputs are computed once, here, if the target is small enough and has no augmentation.
    Otherwise a copy of the network computes them in every call.

    Args:
        function: gives the outputs of a network for images, such as `_logits`.
        max_stored: largest number of images whose outputs are stored.
        title: of the progress bar.
    """
    images = task.target
    if len(images) <= max_stored and not images.augmentation:
        outputs_of_images = partial(_teacher_outputs, function, task.model)
        stored_outputs = in_batches(outputs_of_images, images, TEACHER_BATCH, title)
        return partial(rows_of, stored_outputs)
    teacher = copy.deepcopy(task.model)
    return lambda rows: _teacher_outputs(function, teacher, images[rows])


@torch.no_grad()
def _teacher_outputs(function: NetworkFunction, teacher: Classifier, images: Tensor) -> Tensor:
    """Outputs (N, d) in float32, without gradients."""
    # The precision of training, in which the student computes too.
    with autocast(images.device):
        return function(teacher, images).float()


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) of logits (N, K), mean over N."""
    teacher_log_probabilities = F.log_softmax(teacher / temperature, dim=1)
    student_log_probabilities = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(
        student_log_probabilities,
        teacher_log_probabilities,
        reduction="batchmean",
        log_target=True,
    )
