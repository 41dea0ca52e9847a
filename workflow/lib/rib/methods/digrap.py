"""DiGraP, directional gradient projection: steps away from the start are shortened.

A learned share of the component that leads away from the start is removed from each gradient.

Source: Huang, Tian, Maneechotesuwan, Chopra and Kira 2025 (arXiv 2502.15895), equations 3 to 8 and
algorithm 1, around any optimiser; theirs is Adam. As there, the gradient of omega assumes a step of
gradient descent, whatever the optimiser. Algorithm 1 normalises this gradient; here it is divided
by the norms of both vectors. The result is their cosine, independent of learning rate and network
size. The recipe's weight decay stays, outside of the projection. The authors' code
(github.com/chengyuehuang511/DiGraP, named in the paper) has not been compared.
"""

import torch
from pydantic.dataclasses import dataclass

from rib.methods import NonNegative
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio, scale
from rib.methods.base import Task


@dataclass(kw_only=True)
class DirectionalGradientProjection(ConstrainedFineTuning):
    """Replace the gradient g by g - omega * p in tensors with g . d < 0.

    d = theta - start, p = (g . d / |d|^2) d. g . d < 0 is a conflict: a step along -g lengthens d.
    omega, one number from 0 to 1 per tensor, starts at 0, which is full fine-tuning; with 1 a step
    is orthogonal to d. A step of gradient descent with g - omega p moves theta by lr * p per unit
    of omega. So Adam learns omega from cos(g', p), which has the sign of dCE/domega; g' is the
    gradient after this step. In the first step p is zero. Adam learns from each later p, even where
    no conflict led to a projection.
    """

    rate: NonNegative  # Adam's learning rate of omega, mu in the paper

    def setup(self, task: Task) -> None:
        """Let `memory` keep omega and p, which start at 0, from step to step."""
        super().setup(task)
        self.remember_numbers("omega", 0.0)
        self.projections = self.remember_tensors("projection")  # p of the step before

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Learn omega, project the gradients, take the optimiser's step."""
        gradients = self.gradients()
        # cos(g', p) of each tensor: the gradients are g' now, and `self.projections` are still p of
        # the step before.
        inner_products = dots(gradients, self.projections)
        cosines = ratio(inner_products, norms(gradients) * norms(self.projections))
        omegas = self.adam("omega", cosines, self.rate).clamp_(0, 1)
        # p of this step: the component of each gradient along the deviation.
        deviations = self.deviations()
        gradients_along_deviations = dots(gradients, deviations)
        coefficients = ratio(gradients_along_deviations, dots(deviations, deviations))
        torch._foreach_copy_(self.projections, scale(deviations, coefficients))
        # It is removed only where a step would lengthen the deviation.
        strengths = torch.where(gradients_along_deviations < 0, omegas, 0.0)
        torch._foreach_sub_(gradients, scale(self.projections, strengths))
        optimizer.step()
