"""SPD, selective projection decay: steps away from the start are shortened in tensors whose gradient points back to it.

Source: Tian, Huang and Kira 2024 (arXiv 2411.01713), algorithm 2, around any optimiser; theirs is Adam. SPD is a weight
decay, towards the start in place of zero. As in the authors' code (adamSPD.py:148), it takes the place of the
optimiser's: that of the recipe is switched off.
"""

import torch

from rib.methods import NonNegative, algorithm
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio


@algorithm
class SelectiveProjectionDecay(ConstrainedFineTuning):
    """Step to theta' - weight * r * (theta' - start) in tensors with c < 0, to the optimiser's theta' in others.

    c = -g . (theta - start), with g the gradient at theta, which comes before the step. The deviation ratio
    r = max(0, |theta' - start| - |theta - start|) / |theta' - start|, from 0 to 1, is how much of the deviation is new.
    """

    weight: NonNegative  # lambda in the paper; with 1 a selected tensor gets no farther from its start than it was

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        before = self.deviations()
        selected = dots(self.gradients(), before) > 0
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
        after = self.deviations()
        length = norms(after)
        share = self.weight * ratio((length - norms(before)).clamp(min=0), length)
        pull = torch.where(selected, share, 0.0)
        torch._foreach_sub_(self.parameters, torch._foreach_mul(after, pull.unbind()))
