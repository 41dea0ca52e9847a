"""Self-distillation: the teacher is a moving average of the student's weights.

The first teacher is the pretrained model. An exponential average (EMA) forgets it and approaches
the student as training slows down; a weighted average over the whole trajectory (WMA) keeps it.

Source: EMA: Tarvainen and Valpola 2017 (arXiv 1703.01780), section 2. WMA: the teacher of TRACER,
Asadollahzadeh et al. 2026 (arXiv 2605.29380), here with the loss of LwF. The authors' code leaves
BatchNorm statistics out of both averages (src/models/beta_moving_average.py:21, 110), and updates
its EMA every 500 steps (src/models/tracer_loss.py:81) with a decay that rises to 0.9
(src/args.py:269-296).
"""

import copy
from typing import Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import BelowOne, NonNegative, Positive
from rib.methods._distil import divergence
from rib.methods.base import FineTuning, Task
from rib.models.device import autocast


@dataclass(kw_only=True)
class SelfDistillation(FineTuning):
    """Minimise CE + weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)).

    The divergence is a mean over the batch. After t of n steps the teacher has the weights
    sum_i w_i theta_i / sum_i w_i over i = 0..t, where theta_0 are the pretrained weights.
    EMA: w_0 = d^t, w_i = (1 - d) d^(t - i). WMA: w_i is the density of Beta(b, b) at
    (i + 1/2) / (n + 1).
    """

    average: Literal["ema", "wma"]
    temperature: Positive  # T
    weight: NonNegative
    decay: BelowOne  # d; only for ema
    # b; only for wma. With 1 all steps count alike, with less the first and the last count more.
    beta: Positive

    def setup(self, task: Task) -> None:
        """Copy the network as the first teacher."""
        super().setup(task)
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        # Not copies: a change in place changes the network.
        self.memory = _floating_point_tensors(self.teacher)
        self.student = _floating_point_tensors(self.model)

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor:
        """Weighted divergence of the student's logits (N, outputs) from the teacher's."""
        with torch.no_grad(), autocast(self.images.device):
            teacher_logits = self.teacher(self.images[rows]).float()
        distilled = divergence(teacher_logits, logits, self.temperature)
        # If teacher and student are equal, as in the first step, the gradient is 0. log_softmax's
        # backward pass gives rounding errors instead, so the penalty is multiplied by 0.
        differ = (teacher_logits != logits).any()
        return self.weight * self.temperature**2 * differ * distilled

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, and move the teacher's weights towards the student's."""
        super().update(optimizer)
        teacher_tensors = list(self.memory.values())
        student_tensors = list(self.student.values())
        share = self.share(self.step + 1)
        # In place: teacher + share * (student - teacher).
        torch._foreach_lerp_(teacher_tensors, student_tensors, share)

    def share(self, step: int) -> float:
        """Share (0 to 1) of the student after step t in the average: w_t / sum_i w_i, i = 0..t."""
        if self.average == "ema":
            return 1 - self.decay
        positions = (np.arange(step + 1) + 0.5) / (self.steps + 1)
        # Densities are proportional to (x (1 - x))^(b - 1); they may underflow, their logarithms
        # don't.
        log_densities = (self.beta - 1) * np.log(positions * (1 - positions))
        log_sum = np.logaddexp.reduce(log_densities)
        return float(np.exp(log_densities[-1] - log_sum))


def _floating_point_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and BatchNorm statistics by name; BatchNorm's counters can't be averaged."""
    return {
        name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }
