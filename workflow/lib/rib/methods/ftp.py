"""FTP, fast trainable projection: each tensor stays within a learned radius around its start.

Source: Tian, Liu, Smith and Kira 2023 (arXiv 2310.19182), around any optimiser. Weight decay is
part of the optimiser's step, which is projected. In the gradient of the radius, the authors' code
(util/FTP.py) counts all rows (lines 42 and 54); here rows within the radius don't count, since
their derivative is zero. The code's k (line 46) is `annealing`. All tensors are projected, since
the head is pretrained too.
"""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import NonNegative, UpToOne
from rib.methods._constrained import ConstrainedFineTuning, dots
from rib.methods.base import Task

SMALLEST = 1e-8  # smallest radius, with which training starts


@dataclass(kw_only=True)
class FastTrainableProjection(ConstrainedFineTuning):
    """Step to start + min(1, radius / |d|_1) d in each row.

    d = theta' - start, where theta' is the result of the optimiser's step. A row is a slice along a
    tensor's first dimension (an output of a layer); a vector is one row: the MARS norm. Adam learns
    the radius of a tensor from dCE/dradius = sum of g . d / |d|_1 over the rows projected in the
    step before, with g the gradient after that step. A radius is at least 1e-8 and at most the
    longest |d|_1.
    """

    rate: NonNegative  # Adam's learning rate of the radius
    annealing: UpToOne  # factor of positive gradients, which make the radius smaller

    def setup(self, task: Task) -> None:
        """Let `memory` keep the radii and the last directions from step to step."""
        super().setup(task)
        self.remember_numbers("radius", SMALLEST)
        # Derivative of each row with respect to the radius in the step before: d / |d|_1 in rows
        # that were projected, 0 in others.
        self.directions = self.remember_tensors("direction")

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn the radii, take the optimiser's step, project it."""
        radii = self._learn_radii()
        optimizer.step()
        deviations = self.deviations()
        lengths = [mars_norm(deviation) for deviation in deviations]  # |d|_1 of each row
        # Clipped in place: Adam's next step starts from the clipped radii.
        longest = torch.stack([lengths_of_rows.max() for lengths_of_rows in lengths])
        torch.minimum(radii, longest, out=radii).clamp_(min=SMALLEST)
        for i, parameter in enumerate(self.parameters):
            direction = self.directions[i]
            radius = radii[i]
            # A row at the radius counts as projected; otherwise the radius of the longest row would
            # never get a gradient, since it is clipped to this row's length.
            is_limited = lengths[i] >= radius
            direction.copy_(torch.where(is_limited, deviations[i] / lengths[i], 0.0))
            projected = self.starts[i] + radius * direction
            parameter.copy_(torch.where(lengths[i] > radius, projected, parameter))

    def _learn_radii(self) -> Tensor:
        """Radii (L,) after a step of Adam: the tensor in `memory` itself."""
        gradient = dots(self.gradients(), self.directions)  # dCE/dradius of each tensor, (L,)
        # A positive gradient makes a radius smaller; `annealing` slows this down.
        annealed_gradient = torch.where(gradient > 0, self.annealing * gradient, gradient)
        return self.adam("radius", annealed_gradient, self.rate)


def mars_norm(tensor: Tensor) -> Tensor:
    """Sum of the absolute values of each row, (rows, 1, ...) with the tensor's dimensions.

    A vector or a number is one row. The shape (64, 3, 7, 7) gives (64, 1, 1, 1).
    """
    dimensions_of_row: tuple[int, ...] | None = None  # all
    if tensor.ndim > 1:
        dimensions_of_row = tuple(range(1, tensor.ndim))
    return torch.linalg.vector_norm(tensor, ord=1, dim=dimensions_of_row, keepdim=True)
