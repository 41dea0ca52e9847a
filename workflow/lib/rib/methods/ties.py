"""TIES-Merging: task vectors are trimmed, a sign is elected for each value, and the updates of that sign are averaged.

Source: Yadav et al. 2023 (arXiv 2306.01708), section 4 and algorithm 1, with the sign of the summed updates. The authors'
code differs where the trimmed updates add up to exactly 0: it takes the sign that most values have (src/utils/merge_utils.py,
310-343), here no update has the elected sign, and the value stays the pretrained one. It also keeps one value more
(merge_utils.py, 122-147).
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
        density: share of a parent's values, over all parameters, whose updates are kept: those of largest magnitude.
        scaling: lambda.
    """
    thresholds = {parent: _threshold(states, parent, density) for parent in states.changes}
    for name in states.names:
        updates = [(states.update(parent, name), least) for parent, least in thresholds.items()]
        trimmed = torch.stack(
            [update * (update.abs().float() >= least) for update, least in updates]
        )
        agree = (trimmed.sign() == trimmed.sum(dim=0).sign()) & (trimmed != 0)
        update = (trimmed * agree).sum(dim=0) / agree.sum(dim=0).clamp_min(1)
        yield name, (states.start[name].double() + scaling * update).to(states.start[name].dtype)


def _threshold(states: States, parent: str, density: float) -> float:
    """Smallest magnitude that is kept of a parent's task vector; 0 if no more values than are kept have changed."""
    changed = [states.update(parent, name).abs().float().flatten().numpy() for name in states.names]
    values, kept = np.concatenate(changed), max(1, int(density * states.size))
    if kept >= len(values):
        return 0.0
    values.partition(len(values) - kept)
    return float(values[-kept])
