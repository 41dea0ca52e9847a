"""Scored states from the values of their columns, as tests write them."""

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np

from rib.config.run import Run
from rib.statistics.counts import Counts
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


def counts_without_shared_objects(
    states: Sequence[ScoredState], objects: Mapping[str, int], correct: Mapping[str, np.ndarray]
) -> Counts:
    """Counts of one image for each object, where no object is in two datasets, of one class.

    Args:
        objects: number of objects by dataset.
        correct: right answers by dataset, (states, objects).
    """
    starts = dict(zip(objects, np.cumsum([0, *objects.values()]), strict=False))
    return Counts(
        states=list(states),
        datasets=list(objects),
        objects=sum(objects.values()),
        object_indices={name: starts[name] + np.arange(n) for name, n in objects.items()},
        labels={name: np.zeros(n, int) for name, n in objects.items()},
        images={name: np.ones(n, np.uint16) for name, n in objects.items()},
        correct=dict(correct),
    )
