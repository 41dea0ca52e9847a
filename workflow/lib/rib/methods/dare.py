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
from rib.models.checkpoint import States


def merge(states: States, *, density: Share, scaling: Positive) -> Iterator[tuple[str, Tensor]]:
    """Merged parameters, by name.

    Args:
        density: probability 1 - p with which an update is kept.
        scaling: lambda.
    """
    for name in states.names:
        merged = states.start[name].double()
        for parent in states.changes:
            update = states.update(parent, name)
            mask = _mask(f"{states.run}/{parent}/{name}", update, density)
            merged = merged + scaling * update * mask / density
        yield name, merged.to(states.start[name].dtype)


def _mask(seed: str, update: Tensor, density: float) -> Tensor:
    """Which values of an update are kept, in its shape.

    It depends on the text of its seed alone, not on the order of tensors.
    """
    digest = hashlib.sha256(seed.encode()).digest()
    number = int.from_bytes(digest[:8]) >> 1
    generator = torch.Generator().manual_seed(number)
    return torch.rand(update.shape, generator=generator) < density
