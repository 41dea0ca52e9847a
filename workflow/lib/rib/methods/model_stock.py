"""Model Stock: the mean of the parents is pulled to the pretrained model as far as they disagree.

Source: Jang et al. 2024 (arXiv 2403.19522), section 4: theta = t mean_i theta_i + (1 - t) theta_pre
with the ratio t = N cos / (1 + (N - 1) cos) of N parents, where cos is the cosine between the
updates theta_i - theta_pre of two parents, for more than two the mean over pairs. Each layer has
its own; a layer is a weight or a bias. The authors have published no code. This is the form after
training; the paper also merges periodically in the course of training, which is not built.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from torch import Tensor

from rib.models.checkpoint import StatesToMerge


def merge(states: StatesToMerge) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the tensor of each merged parameter: (1 - t) theta_pre + t mean_i theta_i.

    The ratio is t = n cos / (1 + (n - 1) cos) for n parents theta_i. Here cos is the cosine between
    the updates of two parents, theta_i - theta_pre and theta_j - theta_pre, as a mean over all
    pairs of parents. Each parameter has a ratio of its own: 1 if the parents are equal, and 0 if
    their updates are orthogonal.

    The cosine of a pair is not defined if one of the two did not change the parameter, and then
    counts as 0. A negative mean counts as 0 too, since t would be negative and unbounded.

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
        cosine = max(0.0, _mean_cosine(updates))
        ratio = n * cosine / (1 + (n - 1) * cosine)
        merged = (1 - ratio) * start + ratio * sum(states.values(name)) / n
        yield name, merged.to(states.start[name].dtype)


def _mean_cosine(updates: Sequence[Tensor]) -> float:
    """Mean over all pairs of updates, at least two tensors of one shape, of the pair's cosine."""
    squared_norms = [float(update.square().sum()) for update in updates]
    cosines = []
    for i, j in combinations(range(len(updates)), 2):
        inner_product = float((updates[i] * updates[j]).sum())
        cosines.append(_cosine(inner_product, squared_norms[i], squared_norms[j]))
    return sum(cosines) / len(cosines)


def _cosine(inner_product: float, squared_norm: float, other_squared_norm: float) -> float:
    """Cosine of two vectors, exactly 1 if they are equal; 0 if one of them is the zero vector."""
    product_of_norms = math.sqrt(squared_norm * other_squared_norm)
    if product_of_norms == 0.0:
        return 0.0
    return inner_product / product_of_norms
