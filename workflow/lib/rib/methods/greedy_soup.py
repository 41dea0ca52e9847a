"""Greedy soup: ingredients are added to the average, best first, if held-out accuracy does not drop.

Source: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1.
"""

from collections.abc import Callable, Mapping, Sequence

from rib.config.run import PRETRAINED


def select(
    parents: Sequence[str],
    score: Callable[[Mapping[str, float]], float],
    *,
    pretrained: bool = True,
) -> dict[str, float]:
    """Weights of the soup; without `pretrained`, the pretrained model is no candidate, as in the source."""
    states = [PRETRAINED, *parents] if pretrained else parents
    ranked = sorted(states, key=lambda state: -score({state: 1.0}))  # stable: ties keep their order
    soup = [ranked[0]]
    for state in ranked[1:]:
        if score(_uniform([*soup, state])) >= score(_uniform(soup)):
            soup.append(state)
    return _uniform(soup)


def _uniform(states: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(states, 1 / len(states))
