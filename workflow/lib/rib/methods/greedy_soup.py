"""Greedy soup: ingredients are added to the average, best first, if held-out accuracy stays.

Source: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1: an ingredient stays if accuracy does not
drop.
"""

from collections.abc import Callable, Mapping, Sequence

from rib.schema.run import PRETRAINED


def select(
    parents: Sequence[str],
    score: Callable[[Mapping[str, float]], float],
    *,
    pretrained: bool,
) -> dict[str, float]:
    """Equal coefficients of the models in the soup, such as {"ft": 0.5, "lwf": 0.5}.

    Args:
        parents: names of the fine-tuned models.
        score: gives the accuracy on held-out images of the average with the given coefficients.
        pretrained: whether the pretrained model is a candidate too; in the source it is not.
    """
    candidates = [PRETRAINED, *parents] if pretrained else list(parents)
    accuracy_of = {candidate: score({candidate: 1.0}) for candidate in candidates}
    # Best first; the sort is stable, so ties keep their order.
    best_candidate, *other_candidates = sorted(
        candidates, key=lambda candidate: accuracy_of[candidate], reverse=True
    )
    soup = [best_candidate]
    for candidate in other_candidates:
        larger_soup = [*soup, candidate]
        if score(_uniform(larger_soup)) >= score(_uniform(soup)):
            soup = larger_soup
    return _uniform(soup)


def _uniform(models: Sequence[str]) -> dict[str, float]:
    """Equal coefficients: ["ft", "lwf"] gives {"ft": 0.5, "lwf": 0.5}."""
    return dict.fromkeys(models, 1 / len(models))
