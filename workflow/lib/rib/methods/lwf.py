"""Learning without Forgetting: fine-tuning with distillation of the pretrained model's outputs.

Without augmentation the teacher sees the same images in every epoch, so its logits are computed
once, unless the target is too large.

Source: Li and Hoiem 2017 (arXiv 1606.09282), equation 2, in the form of Hinton et al. 2015
(arXiv 1503.02531), section 2: the Kullback-Leibler divergence at temperature T times T^2, so that
the scale of its gradient does not depend on T. All 1000 logits are distilled. The released code of
ImageNet-RIB (lib/regularization.py) distils only the logits of the target's classes, without the
factor T^2: the variant lwf_released.
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

    The divergence is the mean over the batch.
    """

    temperature: Positive  # T
    weight: NonNegative  # of the distillation
    distil: Literal["all", "class"]  # 1000 logits, or the class logits of the target's label space

    def setup(self, task: Task) -> None:
        """Prepare for training: compute or prepare the teacher's logits of the target's images."""
        super().setup(task)
        self.teacher_logits = pretrained_outputs(_logits, task, MOST_STORED, "teacher logits")

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch."""
        teacher = self.teacher_logits(rows)
        student = logits
        if self.distil == "class":
            teacher = class_logits(teacher, self.images.members)
            student = class_logits(student, self.images.members)
        distilled = divergence(teacher, student, self.temperature)
        return self.weight * self.temperature**2 * distilled


def _logits(network: Classifier, images: Tensor) -> Tensor:
    """Logits (N, 1000) of images (N, 3, H, W)."""
    logits: Tensor = network(images)
    return logits


def pretrained_outputs(
    function: NetworkFunction, task: Task, max_stored: int, title: str
) -> Callable[[np.ndarray], Tensor]:
    """A function that gives the outputs (N, d) of the network as it is now, by rows of the target.

    If the target has no more images than may be stored, and no augmentation, their outputs are
    computed once, here. Otherwise a copy of the network computes them whenever they are asked for.

    Args:
        function: what is computed of the network and images, such as `_logits`.
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
    """What a function gives for the teacher and images (N, 3, H, W), without gradients.

    It is computed in the precision of training, by autocast, and returned as float32.
    """
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
