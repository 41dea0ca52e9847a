"""Model soup: the uniform average of the pretrained and several fine-tuned models' weights.

Source: Wortsman et al. 2022 (arXiv 2203.05482), section 2, uniform soup; with the pretrained model among the
ingredients as in arXiv 2410.21582.
"""

from collections.abc import Sequence

from rib.runs import PRETRAINED


def recipe(parents: Sequence[str]) -> dict[str, float]:
    """Equal weight of the pretrained model and of each parent."""
    states = [PRETRAINED, *parents]
    return dict.fromkeys(states, 1 / len(states))
