"""Scored states from the values of their columns, as tests write them."""

from rib.analysis.scored_state import ScoredState
from rib.config.run import Run


def state_of(
    model: str, method: str, target: str, size: str, seed: int, alpha: float | None = None
) -> ScoredState:
    """The state with these values of `STATE_COLUMNS`."""
    return ScoredState(Run(model, target, method, size, seed), alpha)
