"""Scored states from the values of their columns, as tests write them."""

from math import nan

from rib.schema.run import Run
from rib.statistics.scored_state import ScoredState


def state_of(
    model: str, method: str, target: str, size: str, seed: int, alpha: float | None = None
) -> ScoredState:
    """The state with these values of `STATE_COLUMNS`."""
    return ScoredState(Run(model, target, method, size, seed), alpha)


def columns_of_run(method: str, target: str, seed: int = 0) -> dict[str, str | int | float]:
    """Columns that rows of a run of the model `m` have, of a network trained on all images."""
    return {
        "model": "m",
        "method": method,
        "target": target,
        "size": "all",
        "seed": seed,
        "alpha": nan,
    }
