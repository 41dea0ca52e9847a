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

from rib.grid.stored_outputs import LARGEST_OF_TEACHER_ON_HOST, LARGEST_STORED
from rib.methods.base import FineTuning
from rib.models.device import autocast
from rib.models.images import images_at, in_batches, to_device
from rib.models.network import Classifier

TEACHER_BATCH = 64
FLOAT, HALF_FLOAT = 4, 2  # bytes of a number
LARGEST_HALF = torch.finfo(torch.half).max

# Outputs (N, d) of a network for images (N, 3, H, W).
NetworkFunction = Callable[[Classifier, Tensor], Tensor]


class Distillation(FineTuning):
    """Base class of methods that imitate outputs of the network that training starts from."""

    pretrained_teacher = True
    stored_outputs = True

    def pretrained_outputs(
        self, function: NetworkFunction, title: str
    ) -> Callable[[np.ndarray], Tensor]:
        """Function from rows (N,) of the target to outputs (N, d) of the network as it is now.

        A method calls it in `setup`, after `super().setup(task)`. The outputs are computed once,
        here, if they fit into LARGEST_STORED on the device of the images or, in fp16 and with
        `large_outputs_on_host`, into LARGEST_OF_TEACHER_ON_HOST in the host's memory. With
        augmentation, or if they don't fit, a copy of the network computes them in every call.

        Args:
            function: gives the outputs of a network for images, such as its logits.
            title: of the progress bar.
        """
        images = self.images
        outputs_of_images = partial(_teacher_outputs, function, self.model)
        if not images.augmentation:
            number_of_outputs = len(images) * outputs_of_images(images[slice(1)]).numel()
            if FLOAT * number_of_outputs <= LARGEST_STORED:
                stored_outputs = in_batches(outputs_of_images, images, TEACHER_BATCH, title)
                return partial(images_at, stored_outputs)
            size_in_half = HALF_FLOAT * number_of_outputs
            if self.large_outputs_on_host and size_in_half <= LARGEST_OF_TEACHER_ON_HOST:
                outputs_in_half = partial(_in_half, outputs_of_images)
                outputs_on_host = in_batches(outputs_in_half, images, TEACHER_BATCH, title)
                return lambda rows: _on_device(outputs_on_host, rows, images.device)
        teacher = copy.deepcopy(self.model)
        return lambda rows: _teacher_outputs(function, teacher, images[rows])


@torch.no_grad()
def _teacher_outputs(function: NetworkFunction, teacher: Classifier, images: Tensor) -> Tensor:
    """Outputs (N, d) in float32, without gradients."""
    # The precision of training, in which the student computes too.
    with autocast(images.device):
        return function(teacher, images).float()


def _in_half(outputs_of_images: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Outputs (N, d) in fp16 on the CPU; beyond its largest number they would be infinite."""
    return outputs_of_images(images).clamp(-LARGEST_HALF, LARGEST_HALF).half().cpu()


def _on_device(outputs_on_host: Tensor, rows: np.ndarray, device: torch.device) -> Tensor:
    return to_device(images_at(outputs_on_host, rows), device).float()


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
