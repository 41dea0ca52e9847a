"""FTP, fast trainable projection: each tensor stays within a radius around its start, which is learned in training.

Source: Tian, Liu, Smith and Kira 2023 (arXiv 2310.19182), around any optimiser. Weight decay is part of the optimiser's
step, which is projected. The authors' code (util/FTP.py) differs in the gradient of the radius: it counts all rows
(lines 42 and 54). Here rows within the radius, which don't depend on it, don't count: their derivative is zero. Its
k (line 46) is `annealing`. All tensors are projected, since the head is pretrained too.
"""

import torch
from torch import Tensor

from rib.methods import NonNegative, UpToOne, algorithm
from rib.methods._constrained import ConstrainedFineTuning, dots
from rib.methods.base import Task

SMALLEST = 1e-8  # radius, from which training starts


@algorithm
class FastTrainableProjection(ConstrainedFineTuning):
    """Step to start + min(1, radius / |d|_1) d in each row, with d = theta' - start and theta' the optimiser's step.

    A row is a slice along a tensor's first dimension (an output of a layer), a vector is one row: the MARS norm. The
    radius of a tensor is learned with Adam from dCE/dradius = sum of g . d / |d|_1 over the rows projected in the step
    before, g the gradient after that step. It is at least 1e-8 and at most the longest |d|_1.
    """

    rate: NonNegative  # Adam's learning rate of the radius
    annealing: UpToOne  # factor of positive gradients, which make the radius smaller

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.remember_numbers("radius", SMALLEST)
        self.directions = self.remember_tensors("direction")

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        slope = dots(self.gradients(), self.directions)
        radius = self.adam(
            "radius", torch.where(slope > 0, self.annealing * slope, slope), self.rate
        )
        optimizer.step()
        deviations = self.deviations()
        lengths = [mars_norm(deviation) for deviation in deviations]
        longest = torch.stack([length.max() for length in lengths])
        torch.minimum(radius, longest, out=radius).clamp_(min=SMALLEST)
        parts = zip(
            self.parameters, self.starts, self.directions, deviations, lengths, radius, strict=True
        )
        for parameter, start, direction, deviation, length, most in parts:
            # At the radius the derivative is that of a smaller one; otherwise the longest row would never be tightened.
            direction.copy_(torch.where(length >= most, deviation / length, 0.0))
            parameter.copy_(torch.where(length > most, start + most * direction, parameter))


def mars_norm(tensor: Tensor) -> Tensor:
    """Sum of absolute values of each row, shape (rows, 1, ...); of a vector or a number as a whole."""
    return torch.linalg.vector_norm(
        tensor, ord=1, dim=tuple(range(1, tensor.ndim)) or None, keepdim=True
    )
