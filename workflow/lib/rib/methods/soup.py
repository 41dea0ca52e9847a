"""Model soup: uniform average of the weights of the pretrained model and several fine-tuned models.

Source: Wortsman et al. 2022 (arXiv 2203.05482), section 2, uniform soup; including the pretrained model as in
arXiv 2410.21582.
"""

from collections.abc import Sequence

from rib.config.run import PRETRAINED


def recipe(parents: Sequence[str]) -> dict[str, float]:
    """Equal weights for the pretrained model and each parent."""
    states = [PRETRAINED, *parents]
    return dict.fromkeys(states, 1 / len(states))
