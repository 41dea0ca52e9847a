"""WiSE-FT for a range of alphas: the trade-off between downstream accuracy and robustness.

Source: Wortsman et al. 2022 (arXiv 2109.01903), equation 1 and figure 1.
"""

from collections.abc import Sequence

from rib.methods import Count
from rib.methods.wise_ft import coefficients


def curve(parents: Sequence[str], *, steps: Count) -> dict[float, dict[str, float]]:
    """Coefficients of an average for each alpha: {0.5: {"pretrained": 0.5, "ft": 0.5}, ...}.

    Alpha, the share of the fine-tuned model, is 0, 1/steps, ..., 1.
    """
    alphas = [step / steps for step in range(steps + 1)]
    return {alpha: coefficients(parents, alpha=alpha) for alpha in alphas}
