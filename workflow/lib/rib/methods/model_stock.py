"""Model Stock: the mean of the parents is pulled to the pretrained model as far as they disagree.

Source: Jang et al. 2024 (arXiv 2403.19522), section 4: theta = t mean_i theta_i + (1 - t) theta_pre
with the ratio t = N cos / (1 + (N - 1) cos) of N parents. cos is the cosine between the updates
theta_i - theta_pre of two parents, averaged over all pairs. Each layer has its own ratio; a layer
is a weight or a bias. The authors have published no code. The paper also merges periodically during
training, which is not implemented.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from torch import Tensor

from rib.models.checkpoint import StatesToMerge


def merge(states: StatesToMerge) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each merged parameter, (1 - t) theta_pre + t mean_i theta_i.

    The ratio t is 1 if the parents are equal, and 0 if their updates are orthogonal.

    Raises:
        ValueError: there are fewer than two parents.
    """
    parents = list(states.changes)
    n = len(parents)
    if n < 2:
        raise ValueError(f"it merges at least two parents, but there is {n}")
    for name in states.names:
        start = states.start[name].double()
        updates = [states.update(parent, name) for parent in parents]
        # With a negative cosine t would be negative and unbounded.
        cosine = max(0.0, _mean_cosine(updates))
        ratio = n * cosine / (1 + (n - 1) * cosine)
        merged = (1 - ratio) * start + ratio * sum(states.values(name)) / n
        yield name, merged.to(states.start[name].dtype)


def _mean_cosine(updates: Sequence[Tensor]) -> float:
    """Mean cosine over all pairs of parents; `updates` has one tensor's update by each parent."""
    squared_norms = [float(update.square().sum()) for update in updates]
    cosines = []
    for i, j in combinations(range(len(updates)), 2):
        inner_product = float((updates[i] * updates[j]).sum())
        cosines.append(_cosine(inner_product, squared_norms[i], squared_norms[j]))
    return sum(cosines) / len(cosines)


def _cosine(inner_product: float, squared_norm: float, other_squared_norm: float) -> float:
    # One square root, not two: the cosine of equal vectors is then exactly 1.
    product_of_norms = math.sqrt(squared_norm * other_squared_norm)
    if product_of_norms == 0.0:
        return 0.0  # a parent has not changed this parameter
    return inner_product / product_of_norms
