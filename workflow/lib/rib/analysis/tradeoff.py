"""Accuracy on the target beside mRI, both with confidence intervals from the same bootstrap. No torch."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis.bootstrap import object_weights, over_runs
from rib.analysis.counts import COLUMNS, EVERY, Counts, State, count, read_counts, read_indexes
from rib.analysis.ri import ood_accuracies
from rib.base.files import write_table
from rib.config.run import NO_TARGET, PRETRAINED

NUMBERS = ["on_target", "on_target_low", "on_target_high", "mri", "ci_low", "ci_high"]


def tradeoff_table(counts: Counts, weights: np.ndarray, confidence: float, **choices) -> pd.DataFrame:
    """One row per model, method, size and alpha (NaN unless part of a curve).

    on_target (percent) and mri (percentage points) are means over targets and seeds, with confidence intervals (see
    `over_runs`). Targets that are not evaluated are left out of on_target, which is NaN if there are no others. The
    pretrained model has its mean accuracy on all targets, and mRI 0 without an interval.

    Args:
        weights: (1 + replicates, objects), see `object_weights`.
        choices: ood_datasets and source_groups of `ood_accuracies`.
    """
    ood = ood_accuracies(counts, weights, **choices)
    targets = [name for name in counts.datasets if name in {state[2] for state in ood}]
    groups = {_group(state): ({}, {}) for state in counts.states}  # accuracies and changes of accuracy, by target
    for name in targets:
        rows = [place for place, state in enumerate(counts.states) if state[2] in (name, NO_TARGET)]
        for place, values in zip(rows, counts.accuracy_on(name, weights, rows, EVERY).T, strict=True):
            groups[_group(counts.states[place])][0].setdefault(name, []).append(values)
    for state, pair in ood.items():
        groups[_group(state)][1].setdefault(state[2], []).append(pair.after - pair.before)
    none = np.full((1, 1, len(weights)), np.nan)
    lines = []
    for key, pair in groups.items():
        runs = [np.array(list(by_target.values())) if by_target else none for by_target in pair]
        lines.append((*key, runs[1].shape[1], *(n for values in runs for n in over_runs(values, confidence))))
    table = pd.DataFrame(lines, columns=["model", "method", "size", "alpha", "seeds", *NUMBERS])
    return table.astype({"alpha": float}).assign(mri=table["mri"].where(table["method"] != PRETRAINED, 0))


def _group(state: State) -> tuple:
    """Model, method, size and alpha."""
    return (*state[:2], state[3], state[5])


def write_tradeoff(
    *,
    counts: Path | None = None,
    rows: Iterable[Path] = (),
    indexes: Iterable[Path] = (),
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    table: Path,
) -> None:
    """Write the table of a grid from its counts, or that of the course of training from rows.

    Args:
        rows: evaluation rows of pretrained models and of snapshots, whose alpha is the share of training. The table has
            the column `trained`, percent of all steps, in place of alpha.
        indexes: index of each dataset of the rows; folder names identify it.
    """
    files = (pd.read_parquet(path, columns=COLUMNS) for path in rows)
    found = []
    for part in read_counts(counts) if counts else [count(files, read_indexes(indexes))]:
        weights = object_weights(part.objects, replicates, seed)
        choices = {"ood_datasets": ood_datasets, "source_groups": source_groups}
        found.append(tradeoff_table(part, weights, confidence, **choices))
    whole = pd.concat(found).assign(conditions=conditions)
    if counts is None:
        whole.insert(3, "trained", 100 * whole.pop("alpha").fillna(0))
    write_table(table, whole)
