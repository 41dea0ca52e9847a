"""Greedy soup: ingredients are added to the average, best first, if held-out accuracy stays.

Source: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1: an ingredient stays if accuracy does not
drop.
"""

from collections.abc import Callable, Mapping, Sequence

from rib.config.run import PRETRAINED


def select(
    parents: Sequence[str],
    score: Callable[[Mapping[str, float]], float],
    *,
    pretrained: bool = True,
) -> dict[str, float]:
    """Weights of the soup.

    Args:
        pretrained: whether the pretrained model is a candidate too; it is none in the source.
    """
    candidates = [PRETRAINED, *parents] if pretrained else parents
    # The sort is stable: ties keep their order.
    ranked = sorted(candidates, key=lambda candidate: -score({candidate: 1.0}))
    soup = [ranked[0]]
    for candidate in ranked[1:]:
        if score(_uniform([*soup, candidate])) >= score(_uniform(soup)):
            soup.append(candidate)
    return _uniform(soup)


def _uniform(states: Sequence[str]) -> dict[str, float]:
    """Equal weights of states, which add up to 1."""
    return dict.fromkeys(states, 1 / len(states))
