"""Model soup: uniform average of several fine-tuned models and, if wanted, the pretrained model.

Source: Wortsman et al. 2022 (arXiv 2203.05482), section 2, uniform soup; arXiv 2410.21582 includes
the pretrained model.
"""

from collections.abc import Sequence

from rib.schema.run import PRETRAINED


def coefficients(parents: Sequence[str], *, pretrained: bool) -> dict[str, float]:
    """Equal coefficients of the parents, such as {"pretrained": 0.5, "ft": 0.5}.

    Args:
        pretrained: whether the pretrained model is averaged with them.
    """
    states = [PRETRAINED, *parents] if pretrained else list(parents)
    return dict.fromkeys(states, 1 / len(states))
