"""SPD, selective projection decay: tensors whose gradient step leads back to the start decay to it.

Source: Tian, Huang and Kira 2024 (arXiv 2411.01713), algorithm 2, around any optimiser; theirs is
Adam. SPD is a weight decay towards the start instead of zero. As in the authors' code
(adamSPD.py:148), the recipe's weight decay is switched off.
"""

import torch
from pydantic.dataclasses import dataclass

from rib.methods import NonNegative
from rib.methods._constrained import ConstrainedFineTuning, dots, norms, ratio, scale


@dataclass(kw_only=True)
class SelectiveProjectionDecay(ConstrainedFineTuning):
    """Step to theta' - weight * r * (theta' - start) in tensors with c < 0, to theta' in others.

    theta' is the result of the optimiser's step; c = -g . (theta - start), where g is the gradient
    at theta, before the step. The deviation ratio
    r = max(0, |theta' - start| - |theta - start|) / |theta' - start|, from 0 to 1, is the share of
    the deviation's length that the step has added. Momentum can add length although c < 0.
    """

    # lambda in the paper; with 1 a step can't move a selected tensor away from its start.
    weight: NonNegative

    @torch.no_grad()
    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimiser's step, and shorten the deviations of tensors with c < 0."""
        deviations_before = self.deviations()
        # c < 0: a step against the gradient leads back to the start.
        is_selected = dots(self.gradients(), deviations_before) > 0
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
        deviations = self.deviations()
        lengths = norms(deviations)
        added_lengths = (lengths - norms(deviations_before)).clamp(min=0)
        deviation_ratios = ratio(added_lengths, lengths)
        decays = torch.where(is_selected, self.weight * deviation_ratios, 0.0)
        torch._foreach_sub_(self.parameters, scale(deviations, decays))
