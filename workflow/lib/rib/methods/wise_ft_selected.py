"""WiSE-FT with alpha chosen on held-out images of the target.

Source: Wortsman et al. 2022 (arXiv 2109.01903), section 3: alpha, the mixing coefficient of
equation 1, has the highest accuracy on the select split; among ties the smallest alpha is chosen,
which is nearest to the pretrained model.
"""

from collections.abc import Callable, Mapping, Sequence

from rib.methods import Count
from rib.methods.wise_ft_curve import curve


def select(
    parents: Sequence[str], score: Callable[[Mapping[str, float]], float], *, steps: Count
) -> dict[str, float]:
    """Coefficients of the best average, such as {"pretrained": 0.3, "ft": 0.7}.

    Args:
        parents: name of the one fine-tuned model.
        score: gives the accuracy on the select split of the average with these coefficients.
        steps: alpha, the share of the fine-tuned model, is one of 0, 1/steps, ..., 1.
    """
    coefficients_by_alpha = curve(parents, steps=steps)
    return max(coefficients_by_alpha.values(), key=score)  # the first of ties
