"""A scored state: the network of a run, or one of the networks of a curve. No torch.

A curve has a network for each alpha from 0 to 1, such as averages of two networks' weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

from rib.schema.run import ALL, NO_TARGET, PRETRAINED, RUN_COLUMNS, Run

STATE_COLUMNS = [*RUN_COLUMNS, "alpha"]  # table columns that identify a state


@total_ordering
@dataclass(frozen=True)
class ScoredState:
    """A network whose predictions are counted.

    States are sorted by `STATE_COLUMNS`; a missing alpha comes first.
    """

    run: Run
    alpha: float | None = None  # position on a curve, 0 to 1; None for a run with one network

    def __lt__(self, other: "ScoredState") -> bool:
        return self._sort_key() < other._sort_key()

    def _sort_key(self) -> tuple[Any, ...]:
        # None can't be compared with numbers.
        alpha = -1.0 if self.alpha is None else self.alpha
        return (*self.run.values(RUN_COLUMNS), alpha)

    @property
    def is_pretrained(self) -> bool:
        return self.run.method == PRETRAINED

    @property
    def is_on_curve(self) -> bool:
        return self.alpha is not None

    def column_values(self) -> tuple[Any, ...]:
        """Values of `STATE_COLUMNS`, such as ("net", "ft", "noto", "all", 0, None)."""
        return (*self.run.values(RUN_COLUMNS), self.alpha)

    def before_fine_tuning(self) -> "ScoredState":
        """The pretrained model that the network started from."""
        pretrained_run = Run(
            model=self.run.model, target=NO_TARGET, method=PRETRAINED, size=ALL, seed=0
        )
        return ScoredState(pretrained_run)


def run_of_row(row: Mapping[Any, Any]) -> Run:
    """The run of a row with the columns `RUN_COLUMNS`: {"model": "net", "target": "noto", ...}."""
    return Run(
        model=row["model"],
        target=row["target"],
        method=row["method"],
        size=row["size"],
        seed=int(row["seed"]),
    )
