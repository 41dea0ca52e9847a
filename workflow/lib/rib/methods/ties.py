"""TIES-Merging: trim small updates, elect a sign for each value, average the updates that agree.

Source: Yadav et al. 2023 (arXiv 2306.01708), section 4 and algorithm 1, with the sign of the summed
updates. Where the trimmed updates add up to exactly 0, the authors' code takes the sign of most
values (src/utils/merge_utils.py, 310-343); here the value stays pretrained. Their code also keeps
one value more (merge_utils.py, 122-147).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rib.methods import Positive, Share
from rib.models.checkpoint import StatesToMerge


def merge(
    states: StatesToMerge, *, density: Share, scaling: Positive
) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each merged parameter, theta_pre + lambda tau.

    Each parent keeps its largest updates. The elected sign of a value is the sign of the sum of the
    kept updates; tau is the mean of the kept updates with this sign, or 0 if there are none.

    Args:
        density: share of a parent's values, over all parameters, whose updates are kept.
        scaling: lambda.
    """
    parents = list(states.changes)
    threshold_of = {parent: _threshold(states, parent, density) for parent in parents}
    for name in states.names:
        start = states.start[name]
        trimmed_updates = []
        for parent in parents:
            update = states.update(parent, name)
            is_kept = update.abs().float() >= threshold_of[parent]
            trimmed_updates.append(update * is_kept)
        trimmed = torch.stack(trimmed_updates)  # (parents, ...)
        elected_sign = trimmed.sum(dim=0).sign()
        agrees = (trimmed.sign() == elected_sign) & (trimmed != 0)
        number_of_agreeing = agrees.sum(dim=0)
        tau = (trimmed * agrees).sum(dim=0) / number_of_agreeing.clamp_min(1)
        merged = start.double() + scaling * tau
        yield name, merged.to(start.dtype)


def _threshold(states: StatesToMerge, parent: str, density: float) -> float:
    """Smallest magnitude of a parent's kept updates; 0 if fewer values changed than are kept."""
    magnitudes_of_parameters = []
    for name in states.names:
        magnitude = states.update(parent, name).abs().float()
        magnitudes_of_parameters.append(magnitude.flatten().numpy())
    magnitudes = np.concatenate(magnitudes_of_parameters)
    number_to_keep = max(1, int(density * states.size))
    if number_to_keep >= len(magnitudes):
        return 0.0
    # A partition is faster than sorting all magnitudes.
    place = len(magnitudes) - number_to_keep
    magnitudes.partition(place)
    return float(magnitudes[place])
