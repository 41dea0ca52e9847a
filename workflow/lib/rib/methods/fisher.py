"""Fisher merging: an average of the parents, each value weighted by its Fisher information.

Source: Matena and Raffel 2022 (arXiv 2111.09832), section 3:
theta_j = sum_m F_mj theta_mj / sum_m F_mj, with equal coefficients of the models. F_m is the
diagonal of the Fisher information on the training images of parent m. Labels are sampled from the
model, instead of the expectation over all 1000. The authors' code also divides F_m by its norm, and
raises the first model's F to 1e-6 (model_merging/merging.py, 63-64 and 88-89).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from rib.methods import Count
from rib.models.checkpoint import StatesToMerge


def merge(
    states: StatesToMerge, fisher: Mapping[str, Mapping[str, Tensor]], *, fisher_images: Count
) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each merged parameter, sum_m F_m theta_m / sum_m F_m.

    Where F_m of all parents is 0, the merged value is their plain mean.

    Args:
        fisher: diagonal Fisher information of each parent, at least 0, in the parameters' shapes,
            such as {"ft": {"head.bias": tensor}}.
        fisher_images: maximum number of images for F_m, used by the job that computes `fisher`.
    """
    for name in states.names:
        # (parents, ...)
        information = torch.stack([diagonal[name].double() for diagonal in fisher.values()])
        is_known = information.sum(dim=0) > 0
        # The same weight for all parents gives their plain mean.
        weights = information.where(is_known, 1.0)
        weighted_sum = torch.zeros_like(weights[0])
        for weight, parameter in zip(weights, states.values(name), strict=True):
            weighted_sum = weighted_sum + weight * parameter
        merged = weighted_sum / weights.sum(dim=0)
        yield name, merged.to(states.start[name].dtype)
