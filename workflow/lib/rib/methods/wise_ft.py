"""WiSE-FT: the weights' average of the pretrained and the fine-tuned model.

Source: Wortsman et al. 2022 (arXiv 2109.01903), equation 1: theta = (1 - alpha) theta_pre + alpha theta_ft.
"""

from collections.abc import Sequence

from rib.runs import PRETRAINED


def recipe(parents: Sequence[str], *, alpha: float) -> dict[str, float]:
    """Weight of each state: 1 - alpha for the pretrained one, alpha for the one parent.

    Args:
        parents: the fine-tuned method.
        alpha: 0 (pretrained) to 1 (fine-tuned).

    Raises:
        ValueError: not one parent, or alpha outside 0..1.
    """
    if len(parents) != 1:
        raise ValueError(f"it averages with one parent, but the entry names {len(parents)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give 0 to 1")
    return {PRETRAINED: 1 - alpha, parents[0]: alpha}
