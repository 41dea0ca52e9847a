"""Model Stock: the mean of the parents is pulled towards the pretrained model, in each layer as far as the parents disagree.

Source: Jang et al. 2024 (arXiv 2403.19522), section 4: theta = t mean_i theta_i + (1 - t) theta_pre with the ratio
t = N cos / (1 + (N - 1) cos) of N parents, where cos is the cosine between the updates theta_i - theta_pre of two parents,
for more than two the mean over pairs. A layer is a weight or a bias. The authors have published no code. This is the form after
training; the paper also merges periodically in the course of training, which is not built.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from torch import Tensor

from rib.models.checkpoint import States

FEWEST_PARENTS = 2


def merge(states: States) -> Iterator[tuple[str, Tensor]]:
    """Merged parameters, by name; a ValueError if there are fewer than two parents.

    The ratio is 1 for equal parents and 0 for orthogonal updates. A negative cosine, for which the equation is negative and
    not bounded, counts as 0; so does that with a parent which did not change the layer.
    """
    n = len(states.changes)
    if n < FEWEST_PARENTS:
        raise ValueError(f"it merges at least {FEWEST_PARENTS} parents, but there is {n}")
    for name in states.names:
        start = states.start[name].double()
        updates = [states.update(parent, name) for parent in states.changes]
        squares = [float(update.square().sum()) for update in updates]
        pairs = [_cosine(updates, squares, *places) for places in combinations(range(n), 2)]
        cosine = max(0.0, sum(pairs) / len(pairs))
        ratio = n * cosine / (1 + (n - 1) * cosine)
        yield (
            name,
            ((1 - ratio) * start + ratio * sum(states.values(name)) / n).to(
                states.start[name].dtype
            ),
        )


def _cosine(updates: Sequence[Tensor], squares: Sequence[float], one: int, other: int) -> float:
    """Cosine of two updates, exactly 1 if they are equal; 0 if one is zero."""
    norms = math.sqrt(squares[one] * squares[other])
    return float((updates[one] * updates[other]).sum()) / norms if norms else 0.0
