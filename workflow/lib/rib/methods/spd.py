"""SPD, selective projection decay: some steps away from the start are shortened.

They are those of tensors whose gradient points back to the start.

Source: Tian, Huang and Kira 2024 (arXiv 2411.01713), algorithm 2, around any optimiser; theirs is
Adam. SPD is a weight decay, towards the start in place of zero. As in the authors' code
(adamSPD.py:148), it takes the place of the optimiser's: that of the recipe is switched off.
"""

import torch
from pydantic.dataclasses import dataclass

from rib.methods import NonNegative
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio, scale


@dataclass(kw_only=True)
class SelectiveProjectionDecay(ConstrainedFineTuning):
    """Step to theta' - weight * r * (theta' - start) in tensors with c < 0, to theta' in others.

    theta' is the optimiser's step, c = -g . (theta - start), with g the gradient at theta, which
    comes before the step. The deviation ratio
    r = max(0, |theta' - start| - |theta - start|) / |theta' - start|, from 0 to 1, is how much of
    the deviation is new.
    """

    # lambda in the paper; with 1 a selected tensor gets no farther from its start than it was.
    weight: NonNegative

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, and shorten in chosen tensors the deviation from the start.

        Chosen are tensors whose gradient before the step points away from the start, so that a step
        against it leads back. A deviation is shortened by a share (`weight`) of what the
        optimiser's step has added to its length, which it can through momentum.
        """
        deviations_before = self.deviations()
        # c < 0: a step along the negative gradient leads back to the start.
        is_selected = dots(self.gradients(), deviations_before) > 0
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
        # Of each tensor its deviation from the start, and how much longer the step has made it.
        deviations = self.deviations()
        lengths = norms(deviations)
        added_lengths = (lengths - norms(deviations_before)).clamp(min=0)
        deviation_ratios = ratio(added_lengths, lengths)
        decays = torch.where(is_selected, self.weight * deviation_ratios, 0.0)
        torch._foreach_sub_(self.parameters, scale(deviations, decays))
