"""DiGraP, directional gradient projection: gradients are projected where they leave the start.

How much of the part that leads away from the start is taken out of a gradient is learned.

Source: Huang, Tian, Maneechotesuwan, Chopra and Kira 2025 (arXiv 2502.15895), equations 3 to 8 and
algorithm 1, around any optimiser; theirs is Adam. As there, the gradient of omega is that of one
step of gradient descent, whatever the optimiser. Algorithm 1 normalises it; here by the norms of
both vectors, so that it is their cosine, which depends neither on the learning rate nor on the size
of the network. The recipe's weight decay stays, outside of the projection. The authors' code
(github.com/chengyuehuang511/DiGraP, named in the paper) has not been compared.
"""

import torch

from rib.methods import NonNegative, algorithm
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio
from rib.methods.base import Task


@algorithm
class DirectionalGradientProjection(ConstrainedFineTuning):
    """Give the optimiser g - omega * p in tensors with g . d < 0, g in others.

    d = theta - start, p = (g . d / |d|^2) d. g . d < 0 is a conflict: a step along -g lengthens d.
    omega, one number from 0 to 1 per tensor, starts at 0, which is full fine-tuning; with 1 a step
    is orthogonal to d. A step of gradient descent with g - omega p moves theta by lr * p per unit
    of omega. So omega is learned with Adam from cos(g', p), which has the sign of dCE/domega, with
    g' the gradient after that step. p is zero in the first step; later ones count whether they were
    projected or not.
    """

    rate: NonNegative  # Adam's learning rate of omega, mu in the paper

    def setup(self, task: Task) -> None:
        super().setup(task)
        self.remember_numbers("omega", 0.0)
        self.projections = self.remember_tensors("projection")

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = self.gradients()
        deviations = self.deviations()
        # From the gradient after the step before, and its projection.
        cosine = ratio(
            dots(gradients, self.projections), norms(gradients) * norms(self.projections)
        )
        omega = self.adam("omega", cosine, self.rate).clamp_(0, 1)
        # p of this step; it takes the place of the deviations.
        gradient_along_deviation = dots(gradients, deviations)
        coefficients = ratio(gradient_along_deviation, dots(deviations, deviations))
        torch._foreach_mul_(deviations, coefficients.unbind())
        torch._foreach_copy_(self.projections, deviations)
        strength = torch.where(gradient_along_deviation < 0, omega, 0.0)
        torch._foreach_sub_(gradients, torch._foreach_mul(self.projections, strength.unbind()))
        optimizer.step()
