"""DARE: updates are dropped at random and the others rescaled, before task arithmetic.

Source: Yu et al. 2024 (arXiv 2311.03099), section 3.2: with the drop rate p,
tau' = m tau / (1 - p), where m is 0 with probability p and 1 otherwise; then
theta = theta_pre + lambda sum_t tau'_t. The authors' masks come from the global generator of the
device (model_merging_methods/mask_weights_utils.py, 20).
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from rib.methods import Positive, Share
from rib.models.checkpoint import StatesToMerge


def merge(
    states: StatesToMerge, *, density: Share, scaling: Positive
) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each merged parameter, theta_pre + lambda sum_t tau'_t.

    Args:
        density: probability of keeping a value's update, 1 - p.
        scaling: lambda.
    """
    parents = list(states.changes)
    for name in states.names:
        start = states.start[name]
        merged = start.double()
        for parent in parents:
            update = states.update(parent, name)
            is_kept = _random_mask(f"{states.run}/{parent}/{name}", update.shape, density)
            merged = merged + scaling * update * is_kept / density
        yield name, merged.to(start.dtype)


def _random_mask(seed: str, shape: torch.Size, density: float) -> Tensor:
    """Bool, true with probability `density`; `seed`, "run/parent/tensor", alone decides it."""
    digest = hashlib.sha256(seed.encode()).digest()
    number = int.from_bytes(digest[:8]) >> 1  # 63 bits fit into torch's seed
    generator = torch.Generator().manual_seed(number)
    return torch.rand(shape, generator=generator) < density
