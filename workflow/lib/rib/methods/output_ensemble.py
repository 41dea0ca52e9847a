"""Ensemble in output space: the mean probabilities of the pretrained model and the parents.

Source: Wortsman et al. 2022 (arXiv 2109.01903), who compare it with averages of weights;
Lakshminarayanan et al. 2017 (arXiv 1612.01474), section 2.4, for the mean of probabilities.
Probabilities are over all outputs of the networks.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class OutputEnsemble(nn.Module):
    """The logarithm of the mean softmax of networks in evaluation mode."""

    def __init__(self, networks: Mapping[str, nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks.values())

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities (N, outputs) of images (N, 3, H, W)."""
        log_probabilities = torch.stack(
            [network(images).double().log_softmax(dim=1) for network in self.networks]
        )
        log_sum = log_probabilities.logsumexp(dim=0)
        return (log_sum - math.log(len(self.networks))).float()


def ensemble(networks: Mapping[str, nn.Module]) -> nn.Module:
    """Ensemble of networks such as {"pretrained": network, "ft": network}."""
    return OutputEnsemble(networks)
