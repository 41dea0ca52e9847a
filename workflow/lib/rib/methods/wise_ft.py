"""WiSE-FT: weight average of the pretrained and the fine-tuned model.

Source: Wortsman et al. 2022 (arXiv 2109.01903), equation 1:
theta = (1 - alpha) theta_pre + alpha theta_ft.
"""

from collections.abc import Sequence

from rib.methods import UpToOne
from rib.schema.run import PRETRAINED


def coefficients(parents: Sequence[str], *, alpha: UpToOne) -> dict[str, float]:
    """Coefficients of the average; for alpha 0.3 {"pretrained": 0.7, "ft": 0.3}.

    Args:
        alpha: share of the fine-tuned model.

    Raises:
        ValueError: there is not exactly one parent.
    """
    if len(parents) != 1:
        raise ValueError(f"it averages with one parent, but the entry names {len(parents)}")
    (fine_tuned,) = parents
    return {PRETRAINED: 1 - alpha, fine_tuned: alpha}
