"""Model Stock: the mean of the parents is pulled to the pretrained model as far as they disagree.

Source: Jang et al. 2024 (arXiv 2403.19522), section 4: theta = t mean_i theta_i + (1 - t) theta_pre
with the ratio t = N cos / (1 + (N - 1) cos) of N parents, where cos is the cosine between the
updates theta_i - theta_pre of two parents, for more than two the mean over pairs. Each layer has
its own; a layer is a weight or a bias. The authors have published no code. This is the form after
training; the paper also merges periodically in the course of training, which is not built.
"""

import math
from collections.abc import Iterator
from itertools import combinations

from torch import Tensor

from rib.models.checkpoint import States

FEWEST_PARENTS = 2


def merge(states: States) -> Iterator[tuple[str, Tensor]]:
    """Merged parameters, by name; a ValueError if there are fewer than two parents.

    The ratio is 1 for equal parents and 0 for orthogonal updates. A negative cosine, for which the
    equation is negative and not bounded, counts as 0; so does that with a parent which did not
    change the layer.
    """
    n = len(states.changes)
    if n < FEWEST_PARENTS:
        raise ValueError(f"it merges at least {FEWEST_PARENTS} parents, but there is {n}")
    for name in states.names:
        start = states.start[name].double()
        updates = [states.update(parent, name) for parent in states.changes]
        squared_norms = [float(update.square().sum()) for update in updates]
        cosines = []
        for i, j in combinations(range(n), 2):
            inner_product = float((updates[i] * updates[j]).sum())
            cosines.append(_cosine(inner_product, squared_norms[i], squared_norms[j]))
        cosine = max(0.0, sum(cosines) / len(cosines))
        ratio = n * cosine / (1 + (n - 1) * cosine)
        merged = (1 - ratio) * start + ratio * sum(states.values(name)) / n
        yield name, merged.to(states.start[name].dtype)


def _cosine(inner_product: float, squared_norm: float, other_squared_norm: float) -> float:
    """Cosine of two vectors, exactly 1 if they are equal; 0 if one is zero."""
    product_of_norms = math.sqrt(squared_norm * other_squared_norm)
    if product_of_norms == 0.0:
        return 0.0
    return inner_product / product_of_norms
