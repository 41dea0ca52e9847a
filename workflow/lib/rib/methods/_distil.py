"""Distillation of the network that training starts from, the teacher.

The methods lwf, lipsum_ft and ldifs imitate its outputs.
"""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rib.methods.base import FineTuning
from rib.models.device import autocast
from rib.models.images import images_at, in_batches
from rib.models.network import Classifier

TEACHER_BATCH = 64

# Outputs (N, d) of a network for images (N, 3, H, W).
NetworkFunction = Callable[[Classifier, Tensor], Tensor]


class Distillation(FineTuning):
    """Base class of methods that imitate outputs of the network that training starts from."""

    pretrained_teacher = True
    stored_outputs = True

    def pretrained_outputs(
        self, function: NetworkFunction, max_stored: int, title: str
    ) -> Callable[[np.ndarray], Tensor]:
        """Function from rows (N,) of the target to outputs (N, d) of the network as it is now.

        A method calls it in `setup`, after `super().setup(task)`. The outputs are computed once,
        here, if the target is small enough and has no augmentation. Otherwise a copy of the network
        computes them in every call.

        Args:
            function: gives the outputs of a network for images, such as its logits.
            max_stored: largest number of images whose outputs are stored.
            title: of the progress bar.
        """
        images = self.images
        if len(images) <= max_stored and not images.augmentation:
            outputs_of_images = partial(_teacher_outputs, function, self.model)
            stored_outputs = in_batches(outputs_of_images, images, TEACHER_BATCH, title)
            return partial(images_at, stored_outputs)
        teacher = copy.deepcopy(self.model)
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
