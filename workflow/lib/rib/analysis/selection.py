"""Choice of a variant of each sweep (a method's recipes and swept settings), and RI of the choice. No torch.

For each model, method, size and target a variant is chosen by accuracy, averaged over seeds; of equal ones the first:

    target         on the target's select split (protocol held_out)
    leave_one_out  for each dataset j in the RI, on the OOD datasets that share no source images with j or the target; RI
                   is the mean over j of the gain on j of the variant chosen for j. It estimates a procedure, not one
                   network, and uses labels of OOD datasets.
    oracle         on all datasets in the RI: an upper bound

Every bootstrap replicate chooses again. Select images are resampled by draws of their own; training seeds are fixed.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import COLUMNS as ROW_COLUMNS
from rib.analysis.counts import EVERY, Counts, count, read_counts, read_indexes
from rib.analysis.ri import cached_accuracies, on_other_datasets, pretrained_of
from rib.base.files import write_table
from rib.config.run import MEAN, NO_TARGET

SHOWN = {"oracle": "oracle (upper bound)"}  # names of rules in tables
DECIMALS = 9  # percentage points; a smaller difference is a rounding error
COLUMNS = ["model", "method", "rule", "size", "target", "chosen", "chosen_share", "variants", "ri", "ci_low", "ci_high"]
Choice = tuple[np.ndarray, np.ndarray]  # see `choose`


def choose(scores: np.ndarray, gains: np.ndarray) -> Choice:
    """Choose the variant with the highest score in every replicate, the first of equal ones.

    Args:
        scores: (datasets or 1, replicates, variants) what each dataset's variant is chosen by, in percent.
        gains: (datasets, replicates, variants) accuracy on each dataset minus that of the pretrained model.

    Returns:
        (datasets or 1, replicates) index of the variant chosen; (replicates,) RI of the choice in percentage points, NaN
        where a replicate has no images to choose by.
    """
    best = np.round(scores, DECIMALS).argmax(axis=-1)
    taken = np.take_along_axis(gains, np.broadcast_to(best, gains.shape[:-1])[..., None], axis=-1)[..., 0]
    return best, np.where(np.isnan(scores).any(axis=-1), np.nan, taken).mean(axis=0)


def choices_of(
    counts: Counts,
    weights: np.ndarray,
    variants: Mapping[str, Sequence[str]],
    others: Mapping[str, Mapping[str, Sequence[str]]],
    select: tuple[Counts, np.ndarray] | None = None,
    ood_datasets: Collection[str] | None = None,
    source_groups: Mapping[str, str] | None = None,
) -> dict[tuple[str, str, str], Choice]:
    """Choices of one model, by method, size and target.

    Args:
        weights, ood_datasets, source_groups: see `ood_accuracies`.
        variants: by method, in the order of the grid; methods that the model does not have are ignored.
        others: for leave_one_out, the datasets to choose by, for each target and dataset; else empty.
        select: for the rule target, counts of the select splits, whose states have no target (`none`) and whose datasets
            are the targets, and their weights.
    """
    place = {state: position for position, state in enumerate(counts.states)}
    present = {state[1] for state in counts.states}
    names = [name for own in variants.values() for name in own if name in present]
    runs = [state for state in counts.states if state[1] in names]
    seeds, accuracies_on, found = sorted({state[4] for state in runs}), cached_accuracies(counts, weights), {}
    for size, target in sorted({(state[3], state[2]) for state in runs}):
        states = [(runs[0][0], name, target, size, seed, None) for name in names for seed in seeds]
        rows, before = [place[state] for state in states], [place[pretrained_of(states[0])]]
        gains = {
            name: _over_seeds(accuracies_on(name, rows, kept), len(seeds)) - accuracies_on(name, before, kept)
            for name, kept in on_other_datasets(counts.places, target, ood_datasets, source_groups).items()
        }
        if select:
            selected = [select[0].states.index((*state[:2], NO_TARGET, *state[3:])) for state in states]
            scores = _over_seeds(select[0].accuracy_on(target, select[1], selected, EVERY), len(seeds))[None]
        else:
            by = others[target] if others else dict.fromkeys(gains, list(gains))
            scores = np.array([np.mean([gains[other] for other in by[name]], axis=0) for name in gains])
        every = np.array(list(gains.values()))
        for method, own in variants.items():
            if columns := [names.index(name) for name in own if name in present]:
                found[method, size, target] = choose(scores[..., columns], every[..., columns])
    return found


def _over_seeds(accuracies: np.ndarray, seeds: int) -> np.ndarray:
    """Means over seeds, (replicates, variants), of accuracies (replicates, variants x seeds)."""
    return accuracies.reshape(len(accuracies), -1, seeds).mean(axis=-1)


def selection_table(
    choices: Mapping[tuple[str, str, str], Choice], variants: Mapping[str, Sequence[str]], confidence: float
) -> pd.DataFrame:
    """One row per method, size and target, and one for mRI (target `mean`), with the columns `COLUMNS` without model and rule.

    chosen is the variant that most datasets choose without resampling, chosen_share the percentage of replicates and
    datasets that choose it, variants their number; ri and its interval are in percentage points.
    """
    lines = []
    for method, size in sorted({key[:2] for key in choices}, key=lambda key: (list(variants).index(key[0]), key[1])):
        own = {key[2]: choice for key, choice in choices.items() if key[:2] == (method, size)}
        names = variants[method]
        for target, (best, ri) in own.items():
            chosen = np.bincount(best[:, 0]).argmax()
            share = 100 * (best[:, 1:] == chosen).mean()
            lines.append((method, size, target, names[chosen], share, len(names), *estimate(ri, confidence)))
        mean = np.mean([ri for _, ri in own.values()], axis=0)
        lines.append((method, size, MEAN, None, np.nan, len(names), *estimate(mean, confidence)))
    return pd.DataFrame(lines, columns=["method", "size", *COLUMNS[4:]])


def write_selection(
    *,
    counts: Path,
    rule: str,
    variants: Mapping[str, Sequence[str]],
    others: Mapping[str, Mapping[str, Sequence[str]]],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    table: Path,
    rows: Sequence[Path],
    indexes: Sequence[Path],
) -> None:
    """Write `selection_table` of all models, with the columns model, rule and conditions, as CSV.

    Args:
        variants, others, ood_datasets, source_groups: see `choices_of`.
        rows: for the rule target, rows of the variants on the select split of their target; else empty.
        indexes: index of each dataset; folder names identify it.
    """
    select, found, weights = None, [], None
    if rows:  # without targets, so that objects which several of them share are drawn together
        parts = (pd.read_parquet(path, columns=ROW_COLUMNS).assign(target=NO_TARGET) for path in rows)
        selected = count(parts, read_indexes(indexes))
        select = selected, object_weights(selected.objects, replicates, [seed, 1])  # other draws than of test objects
    for of_model in read_counts(counts):
        if weights is None:
            weights = object_weights(of_model.objects, replicates, seed)
        choices = choices_of(of_model, weights, variants, others, select, ood_datasets, source_groups)
        own = selection_table(choices, variants, confidence)
        found.append(own.assign(model=of_model.states[0][0], rule=SHOWN.get(rule, rule))[COLUMNS])
    write_table(table, pd.concat(found).assign(conditions=conditions))
