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
from rib.models.checkpoint import StatesToMerge


def merge(
    states: StatesToMerge, *, density: Share, scaling: Positive
) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the tensor of each merged parameter: theta_pre + lambda tau.

    tau is the mean of the parents' updates that are large enough and have the elected sign, that of
    the sum of all updates that are large enough; 0 where there are none.

    Args:
        density: share of a parent's values, over all parameters, whose updates are kept: those of
            largest magnitude.
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
        trimmed = torch.stack(trimmed_updates)  # (parents, ...), 0 where an update is not kept
        elected_sign = trimmed.sum(dim=0).sign()
        agrees = (trimmed.sign() == elected_sign) & (trimmed != 0)
        number_of_agreeing = agrees.sum(dim=0)
        tau = (trimmed * agrees).sum(dim=0) / number_of_agreeing.clamp_min(1)
        merged = start.double() + scaling * tau
        yield name, merged.to(start.dtype)


def _threshold(states: StatesToMerge, parent: str, density: float) -> float:
    """Smallest magnitude of an update that is kept of a parent, over all parameters.

    It is 0 if no more values than are kept have changed.

    Args:
        density: share of all values, changed or not, that is kept.
    """
    magnitudes_of_parameters = []
    for name in states.names:
        magnitude = states.update(parent, name).abs().float()
        magnitudes_of_parameters.append(magnitude.flatten().numpy())
    magnitudes = np.concatenate(magnitudes_of_parameters)
    number_to_keep = max(1, int(density * states.size))
    if number_to_keep >= len(magnitudes):
        return 0.0
    # Bring the smallest magnitude that is kept to the place where it would be in ascending order,
    # which takes less time than to sort all of them.
    place = len(magnitudes) - number_to_keep
    magnitudes.partition(place)
    return float(magnitudes[place])
