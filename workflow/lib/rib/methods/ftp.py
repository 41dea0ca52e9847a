"""FTP, fast trainable projection: each tensor stays within a radius around its start.

The radius is learned in training.

Source: Tian, Liu, Smith and Kira 2023 (arXiv 2310.19182), around any optimiser. Weight decay is
part of the optimiser's step, which is projected. The authors' code (util/FTP.py) differs in the
gradient of the radius: it counts all rows (lines 42 and 54). Here rows within the radius, which
don't depend on it, don't count: their derivative is zero. Its k (line 46) is `annealing`. All
tensors are projected, since the head is pretrained too.
"""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from rib.methods import NonNegative, UpToOne
from rib.methods._constrained import ConstrainedFineTuning, dots
from rib.methods.base import Task

SMALLEST = 1e-8  # radius, from which training starts


@dataclass(kw_only=True)
class FastTrainableProjection(ConstrainedFineTuning):
    """Step to start + min(1, radius / |d|_1) d in each row.

    d = theta' - start, with theta' the optimiser's step. A row is a slice along a tensor's first
    dimension (an output of a layer), a vector is one row: the MARS norm. The radius of a tensor is
    learned with Adam from dCE/dradius = sum of g . d / |d|_1 over the rows projected in the step
    before, g the gradient after that step. It is at least 1e-8 and at most the longest |d|_1.
    """

    rate: NonNegative  # Adam's learning rate of the radius
    annealing: UpToOne  # factor of positive gradients, which make the radius smaller

    def setup(self, task: Task) -> None:
        """Prepare for training: each radius is SMALLEST, and nothing was projected before."""
        super().setup(task)
        self.remember_numbers("radius", SMALLEST)
        # From the step before: by how much each row moves if the radius grows by one. That is
        # d / |d|_1 in rows that were projected, and 0 in others.
        self.directions = self.remember_tensors("direction")

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step of FTP: learn the radii, take the optimiser's step, project it.

        Each trained tensor has one radius. A row of the tensor whose deviation d from its start is
        longer than the radius, in the norm |d|_1, is brought back to the radius.
        """
        radii = self._learn_radii()
        optimizer.step()
        deviations = self.deviations()
        lengths = [mars_norm(deviation) for deviation in deviations]  # |d|_1 of each row
        # No radius is larger than the longest row. These are the radii that Adam goes on from, so
        # they are clipped in place.
        longest = torch.stack([lengths_of_rows.max() for lengths_of_rows in lengths])
        torch.minimum(radii, longest, out=radii).clamp_(min=SMALLEST)
        for i, parameter in enumerate(self.parameters):
            direction = self.directions[i]
            radius = radii[i]
            # A row at the radius counts as one beyond it; otherwise the longest row would never be
            # tightened.
            is_limited = lengths[i] >= radius
            direction.copy_(torch.where(is_limited, deviations[i] / lengths[i], 0.0))
            # Rows beyond the radius are brought back to it.
            projected = self.starts[i] + radius * direction
            parameter.copy_(torch.where(lengths[i] > radius, projected, parameter))

    def _learn_radii(self) -> Tensor:
        """Take a step of Adam on the radii, and return them: (L,), one for each trained tensor."""
        gradient = dots(self.gradients(), self.directions)  # dCE/dradius of each tensor, (L,)
        # A positive gradient makes a radius smaller, which `annealing` slows down.
        annealed_gradient = torch.where(gradient > 0, self.annealing * gradient, gradient)
        return self.adam("radius", annealed_gradient, self.rate)


def mars_norm(tensor: Tensor) -> Tensor:
    """Sum of absolute values of each row of a tensor: (rows, 1, ...), with as many dimensions.

    A vector or a number is one row.
    """
    dimensions_of_row: tuple[int, ...] | None = None  # all
    if tensor.ndim > 1:
        dimensions_of_row = tuple(range(1, tensor.ndim))
    return torch.linalg.vector_norm(tensor, ord=1, dim=dimensions_of_row, keepdim=True)
