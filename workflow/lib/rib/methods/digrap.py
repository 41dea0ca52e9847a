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
from pydantic.dataclasses import dataclass

from rib.methods import NonNegative
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio, scale
from rib.methods.base import Task


@dataclass(kw_only=True)
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
        """Prepare for training: omega is 0 for each tensor, and nothing was projected before."""
        super().setup(task)
        self.remember_numbers("omega", 0.0)
        self.projections = self.remember_tensors("projection")

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step of DiGraP: learn omega, project the gradients, take the optimiser's step.

        Of each trained tensor p is the part of its gradient g along its deviation d from the start,
        and omega the share of p that is taken out of g, if g . d < 0. For the formulas see the
        class.
        """
        gradients = self.gradients()
        # cos(g', p) of each tensor. `self.projections` are still p of the step before, and the
        # gradients are those after it.
        inner_products = dots(gradients, self.projections)
        cosines = ratio(inner_products, norms(gradients) * norms(self.projections))
        omegas = self.adam("omega", cosines, self.rate).clamp_(0, 1)
        # p of this step: the part of each gradient that is parallel to the deviation.
        deviations = self.deviations()
        gradients_along_deviations = dots(gradients, deviations)
        coefficients = ratio(gradients_along_deviations, dots(deviations, deviations))
        torch._foreach_copy_(self.projections, scale(deviations, coefficients))
        # Only where a step would lengthen the deviation, it is taken out.
        strengths = torch.where(gradients_along_deviations < 0, omegas, 0.0)
        torch._foreach_sub_(gradients, scale(self.projections, strengths))
        optimizer.step()
