"""Greedy soup: ingredients join the average, best first, as long as accuracy on held-out images does not fall.

Source: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1.
"""

from collections.abc import Callable, Mapping, Sequence

from rib.runs import PRETRAINED


def select(parents: Sequence[str], score: Callable[[Mapping[str, float]], float]) -> dict[str, float]:
    """Weights of the soup.

    Args:
        parents: the fine-tuned methods; the pretrained model is an ingredient too.
        score: accuracy on the select split of a state given as weights.
    """
    ranked = sorted([PRETRAINED, *parents], key=lambda state: -score({state: 1.0}))  # stable: entry order among equals
    soup = [ranked[0]]
    for state in ranked[1:]:
        if score(_uniform([*soup, state])) >= score(_uniform(soup)):
            soup.append(state)
    return _uniform(soup)


def _uniform(states: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(states, 1 / len(states))
