"""Task arithmetic: the sum of the parents' task vectors, scaled, is added to the pretrained model.

Source: Ilharco et al. 2023 (arXiv 2212.04089), section 2: theta = theta_pre + lambda sum_t tau_t,
with the task vectors tau_t = theta_t - theta_pre. For n parents this is an average with the
coefficients 1 - n lambda (pretrained) and lambda (each parent).
"""

from collections.abc import Sequence

from rib.methods import Positive
from rib.schema.run import PRETRAINED


def coefficients(parents: Sequence[str], *, scaling: Positive) -> dict[str, float]:
    """Coefficients that add up to 1; `scaling` is lambda.

    For two parents and lambda 0.3: {"pretrained": 0.4, "ft, seed 1": 0.3, "ft, seed 2": 0.3}.
    """
    return {PRETRAINED: 1 - len(parents) * scaling, **dict.fromkeys(parents, scaling)}
