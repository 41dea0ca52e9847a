"""Accuracies, RI and mRI from counts. Pure functions, no torch.

Definitions (arXiv 2410.21582, section 3), all in percentage points, with the pretrained model's accuracy A_pre(j) on
dataset j and the accuracy A_i(j) after fine-tuning on target i:

    RI_i       = mean over datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

Datasets j are the OOD datasets, including evaluation-only ones. With several seeds, each is also averaged over seeds.
Training subsets are separate. A curve has one state per alpha and a separate table.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rib.analysis.counts import Counts, State
from rib.base.errors import UserError
from rib.config.run import ALL, NO_TARGET, PRETRAINED


@dataclass(frozen=True)
class Ood:
    """Mean accuracy on the other datasets, for one fine-tuned state.

    Attributes:
        before: (replicates,) percent, of the pretrained model.
        after: (replicates,) percent, of the fine-tuned state.
        images: number of images.
    """

    before: np.ndarray
    after: np.ndarray
    images: int


def ood_accuracies(
    counts: Counts,
    weights: np.ndarray,
    ood_datasets: Collection[str] | None = None,
    source_groups: Mapping[str, str] | None = None,
) -> dict[State, Ood]:
    """Mean accuracy on the other datasets before and after fine-tuning, for every fine-tuned state.

    Args:
        counts: counts of a grid.
        weights: (replicates, objects), see `object_weights`.
        ood_datasets: out-of-distribution datasets; None for all.
        source_groups: for leak-free results, source group by dataset. Objects of the target are excluded from the other
            datasets of its source group, before and after fine-tuning; a dataset without remaining objects is dropped
            from the mean.

    Returns:
        Means over datasets j != target of A_pre(j) and A_i(j), by state.

    Raises:
        UserError: no objects remain in any dataset.
    """
    states = [state for state in counts.states if state[1] != PRETRAINED]
    place = {state: position for position, state in enumerate(counts.states)}
    accuracy = counts.accuracy(weights)
    found = {}
    for target in sorted({state[2] for state in states}):
        left = on_other_datasets(counts, target, ood_datasets, source_groups or {})
        images = sum(
            int(counts.images[name][slice(None) if kept is None else kept].sum()) for name, kept in left.items()
        )
        of_target = [state for state in states if state[2] == target]
        before = [place[model, PRETRAINED, NO_TARGET, ALL, 0, None] for model, *_ in of_target]
        after = [place[state] for state in of_target]
        means = [
            np.mean([_on(counts, accuracy, weights, name, rows, kept) for name, kept in left.items()], axis=0)
            for rows in (before, after)
        ]
        found |= {state: Ood(means[0][:, i], means[1][:, i], images) for i, state in enumerate(of_target)}
    return {state: found[state] for state in states}


def ri_parts(
    counts: Counts, ood_datasets: Collection[str] | None = None, source_groups: Mapping[str, str] | None = None
) -> dict[State, np.ndarray]:
    """Contribution of each object to the RI of every fine-tuned state.

    Args:
        counts, ood_datasets, source_groups: as in `ood_accuracies`.

    Returns:
        By state (objects,) percentage points, with sum RI.
    """
    place = {state: position for position, state in enumerate(counts.states)}
    found = {}
    for target in sorted({state[2] for state in counts.states if state[1] != PRETRAINED}):
        left = on_other_datasets(counts, target, ood_datasets, source_groups or {})
        for state in counts.states:
            if state[2] == target:
                rows = [place[state], place[state[0], PRETRAINED, NO_TARGET, ALL, 0, None]]
                found[state] = np.zeros(counts.objects)
                for name, kept in left.items():
                    chosen = slice(None) if kept is None else kept
                    after, before = counts.correct[name][rows][:, chosen].astype(np.float64)
                    n = counts.images[name][chosen].sum(dtype=np.int64)
                    found[state][counts.places[name][chosen]] += 100 * (after - before) / n / len(left)
    return found


def on_other_datasets(
    counts: Counts, target: str, ood_datasets: Collection[str] | None, source_groups: Mapping[str, str]
) -> dict[str, np.ndarray | None]:
    """Datasets in the RI of a target, and which of their objects count: (n,) bool, None for all.

    Args: see `ood_accuracies`.

    Raises:
        UserError: no objects remain in any dataset.
    """
    others = [name for name in counts.datasets if name != target and (ood_datasets is None or name in ood_datasets)]
    left = {name: _leak_free(counts, name, target, source_groups) for name in others}
    left = {name: objects for name, objects in left.items() if objects is None or objects.any()}
    if not left:
        raise UserError(
            f"leak_free: all datasets were made from the same images as {target}, so none is left to evaluate on; "
            "set leak_free to false or evaluate on more datasets."
        )
    return left


def _leak_free(counts: Counts, dataset: str, target: str, source_groups: Mapping[str, str]) -> np.ndarray | None:
    """Which of a dataset's objects remain without those of the target: (n,) bool, None for all."""
    if (
        dataset not in source_groups
        or target not in counts.places
        or source_groups.get(target) != source_groups[dataset]
    ):
        return None
    shared = counts.shared(dataset, target)
    return ~shared if shared.any() else None


def _on(
    counts: Counts,
    accuracy: np.ndarray,
    weights: np.ndarray,
    dataset: str,
    states: Sequence[int],
    kept: np.ndarray | None,
) -> np.ndarray:
    """Accuracies of some states on a dataset, or on its remaining objects: (replicates, states)."""
    if kept is None:
        return accuracy[:, states, counts.datasets.index(dataset)]
    return counts.accuracy_on(dataset, weights, states, kept)
