"""Accuracies, RI and mRI from counts. Pure functions, no torch.

RI is the mean change of accuracy over the out-of-distribution datasets other than the target; datasets in distribution do
not count. Definitions (arXiv 2410.21582, section 3), all in percentage points, with the pretrained model's accuracy A_pre(j) on
dataset j and the accuracy A_i(j) after fine-tuning on target i:

    RI_i       = mean over OOD datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

Datasets j are the OOD datasets, including evaluation-only ones. With several seeds, each is also averaged over seeds.
Training subsets are separate. A curve has one state per alpha and a separate table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from rib.analysis.counts import EVERY, Counts, Index, Shared, State
from rib.base.errors import UserError
from rib.config.run import ALL, NO_TARGET, PRETRAINED

Groups = Mapping[str, str] | None  # for leak-free results, source groups by dataset


@dataclass(frozen=True)
class Ood:
    """Mean accuracy on the other datasets, and accuracy on the target, for one fine-tuned state."""

    before: np.ndarray  # (replicates,) percent, of the pretrained model
    after: np.ndarray  # (replicates,) percent, of the fine-tuned state
    images: int  # number of images
    # (2, replicates) percent, before and after; NaN if the target is not evaluated or only some objects count
    on_target: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """RI (replicates,) in percentage points."""
        return self.after - self.before


def ood_accuracies(
    counts: Counts,
    weights: np.ndarray,
    ood_datasets: Collection[str] | None = None,
    source_groups: Groups = None,
    among: Mapping[tuple[str, str], Mapping[str, np.ndarray]] | None = None,
) -> dict[State, Ood]:
    """Accuracy on the target, and mean accuracy on the others, before and after fine-tuning, of every fine-tuned state.

    Args:
        weights: (replicates, objects), see `object_weights`.
        ood_datasets: out-of-distribution datasets; None for all.
        source_groups: for leak-free results, source group by dataset. Objects of the target are excluded from the other
            datasets of its source group, and objects with identical images (`Counts.shared`) from all others, before and
            after fine-tuning; a dataset without remaining objects is dropped from the mean.
        among: objects that count, (n,) bool by target and size, and dataset (see rib.analysis.coverage); None for all.
            States for which no objects remain are left out.

    Raises:
        UserError: no objects remain in any dataset.
    """
    place = {state: position for position, state in enumerate(counts.states)}
    whole = cache(lambda name: counts.accuracy_on(name, weights, EVERY, EVERY))
    found = {}
    by_target = _by_target(counts, ood_datasets, source_groups)
    for target, size in sorted({state[2:4] for state in counts.states if state[2] in by_target}):
        left = by_target[target] if among is None else _only(by_target[target], among[target, size])
        if not left:
            continue
        states = [state for state in counts.states if state[2:4] == (target, size)]
        rows = [place[state] for state in (*map(_before, states), *states)]
        accuracies = [
            whole(name)[:, rows] if kept is EVERY else counts.accuracy_on(name, weights, rows, kept)
            for name, kept in left.items()
        ]
        means = np.mean(accuracies, axis=0).T
        images = sum(int(counts.images[name][kept].sum()) for name, kept in left.items())
        own = (
            whole(target)[:, rows].T
            if target in counts.datasets and among is None
            else np.full_like(means, np.nan)
        )
        pairs = ([i, len(states) + i] for i in range(len(states)))
        found |= {
            state: Ood(*means[pair], images, own[pair])
            for state, pair in zip(states, pairs, strict=True)
        }
    return {state: found[state] for state in counts.states if state in found}


def ood_parts(
    counts: Counts, ood_datasets: Collection[str] | None = None, source_groups: Groups = None
) -> dict[State, np.ndarray]:
    """Contribution of each object to the mean accuracy on the other datasets, for every state of `ood_accuracies`.

    Returns:
        (2, objects) percent, before and after fine-tuning; the sums over objects are `Ood.before` and `Ood.after`, and that of the differences is RI.
    """
    place = {state: position for position, state in enumerate(counts.states)}
    by_target = _by_target(counts, ood_datasets, source_groups)
    found = {
        state: np.zeros((2, counts.objects)) for state in counts.states if state[2] in by_target
    }
    for state, parts in found.items():
        left, rows = by_target[state[2]], [place[_before(state)], place[state]]
        for name, kept in left.items():
            share = 100 / (counts.images[name][kept].sum(dtype=np.int64) * len(left))
            for part, right in zip(parts, counts.correct[name][rows][:, kept], strict=True):
                part += np.bincount(
                    counts.places[name][kept], share * right, minlength=counts.objects
                )
    return found


def ri_objects(
    counts: Counts, targets: Collection[str], *which: Collection[str] | None
) -> dict[str | None, int]:
    """Number of objects with an image in the RI of each target and, as None, of any; `which`: see `ood_accuracies`."""
    left = _by_target(counts, *which)
    own = {
        target: [counts.places[name][kept] for name, kept in left[target].items()]
        for target in targets
    }
    places = {**own, None: [part for parts in own.values() for part in parts]}
    return {target: len(np.unique(np.concatenate(parts))) for target, parts in places.items()}


def _before(state: State) -> State:
    """The pretrained state that a fine-tuned one started from."""
    return (state[0], PRETRAINED, NO_TARGET, ALL, 0, None)


def _by_target(counts: Counts, *which: Collection[str] | None) -> dict[str, dict[str, Index]]:
    """`on_other_datasets` of each target."""
    targets = sorted({state[2] for state in counts.states if state[1] != PRETRAINED})
    return {
        target: on_other_datasets(counts.places, target, *which, shared=counts.shared)
        for target in targets
    }


def _only(left: Mapping[str, Index], among: Mapping[str, np.ndarray]) -> dict[str, Index]:
    """Those objects of `on_other_datasets` that are also among others; datasets without any are dropped."""
    both = {
        name: among[name] if kept is EVERY else among[name] & kept for name, kept in left.items()
    }
    return {name: EVERY if kept.all() else kept for name, kept in both.items() if kept.any()}


def on_other_datasets(
    places: Mapping[str, np.ndarray],
    target: str,
    ood_datasets: Collection[str] | None,
    source_groups: Groups,
    shared: Shared | None = None,
) -> dict[str, Index]:
    """Datasets in the RI of a target, and which of their objects (`Counts.places`) count: `EVERY` or (n,) bool.

    Args:
        shared: `Counts.shared`; without source groups it has no effect.

    Raises:
        UserError: no objects remain in any dataset.
    """
    others = [
        name for name in places if name != target and (ood_datasets is None or name in ood_datasets)
    ]
    left: dict[str, Index] = {}
    for name in others:
        leaking = np.zeros(len(places[name]), bool)
        if source_groups is not None:
            leaking = _leaking(places, target, name, source_groups, shared or {})
        if not leaking.all():
            left[name] = ~leaking if leaking.any() else EVERY
    if not left:
        raise UserError(
            f"leak_free: all datasets were made from the same images as {target}, so none is left to evaluate on; "
            "set leak_free to false or evaluate on more datasets."
        )
    return left


def _leaking(
    places: Mapping[str, np.ndarray],
    target: str,
    dataset: str,
    source_groups: Mapping[str, str],
    shared: Shared,
) -> np.ndarray:
    """Which objects of a dataset have an image whose source image the target has too: (n,) bool."""
    leaking = shared.get((target, dataset), np.zeros(len(places[dataset]), bool))
    same_group = target in source_groups and source_groups[target] == source_groups.get(dataset)
    if same_group and target in places:
        leaking = leaking | np.isin(places[dataset], places[target])
    return leaking
