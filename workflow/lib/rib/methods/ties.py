"""TIES-Merging: task vectors are trimmed, and updates are averaged that have an elected sign.

Source: Yadav et al. 2023 (arXiv 2306.01708), section 4 and algorithm 1, with the sign of the summed
updates. The authors' code differs where the trimmed updates add up to exactly 0: it takes the sign
that most values have (src/utils/merge_utils.py, 310-343), here no update has the elected sign, and
the value stays the pretrained one. It also keeps one value more (merge_utils.py, 122-147).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rib.methods import Positive, Share
from rib.models.checkpoint import States


def merge(states: States, *, density: Share, scaling: Positive) -> Iterator[tuple[str, Tensor]]:
    """Merged parameters, by name: theta_pre + lambda tau.

    Args:
        density: share of a parent's values, over all parameters, whose updates are kept: those of
            largest magnitude.
        scaling: lambda.
    """
    thresholds = {parent: _threshold(states, parent, density) for parent in states.changes}
    for name in states.names:
        trimmed_updates = []
        for parent, threshold in thresholds.items():
            update = states.update(parent, name)
            trimmed_updates.append(update * (update.abs().float() >= threshold))
        trimmed = torch.stack(trimmed_updates)
        elected_sign = trimmed.sum(dim=0).sign()
        agrees = (trimmed.sign() == elected_sign) & (trimmed != 0)
        tau = (trimmed * agrees).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)
        merged = states.start[name].double() + scaling * tau
        yield name, merged.to(states.start[name].dtype)


def _threshold(states: States, parent: str, density: float) -> float:
    """Smallest magnitude that is kept of a parent's task vector.

    It is 0 if no more values than are kept have changed.
    """
    magnitudes_of_parameters = []
    for name in states.names:
        magnitudes_of_parameters.append(states.update(parent, name).abs().float().flatten().numpy())
    magnitudes = np.concatenate(magnitudes_of_parameters)
    number_to_keep = max(1, int(density * states.size))
    if number_to_keep >= len(magnitudes):
        return 0.0
    magnitudes.partition(len(magnitudes) - number_to_keep)
    return float(magnitudes[-number_to_keep])
