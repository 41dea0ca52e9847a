"""Choice of a variant of each sweep (a method's recipes and swept settings), and RI of the choice. No torch.

The variant with the highest accuracy, averaged over seeds, is chosen; of equal ones the first:

    target         on the target's select split (protocol held_out)
    leave_one_out  for each dataset j in the RI, on those that share no source images with j or the target. RI is the mean
                   gain on j of the variant chosen for j: of a procedure, not of one network, that uses OOD labels.
    oracle         on all datasets in the RI: an upper bound

Every bootstrap replicate chooses again, by the mean over the same seeds. Select images have draws of their own. With three
or more seeds, intervals are `over_runs` of the chosen runs; how much other seeds would change the choice is not in them.

The oracle has no interval. It chooses by what it is scored by, so its RI is above that of the truly best variant, the
more so the more variants are alike, and each replicate chooses by its own chance on top: with 200 objects, one seed
and eight equal variants, 95 % percentile intervals hold the truth in less than half of all cases.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rib.analysis.bootstrap import object_weights, over_runs
from rib.analysis.counts import EVERY, Counts, count, read_counts, read_objects, read_rows_of
from rib.analysis.ri import Groups, on_other_datasets, ood_accuracies
from rib.config.run import MEAN, NO_TARGET

DECIMALS = 9  # percentage points; a smaller difference is a rounding error
TABLE = ["model", "method", "rule", "size", "target", "chosen", "tied_with", "select_accuracy"]
TABLE += ["chosen_share", "variants", "ri", "ci_low", "ci_high"]
ORACLE = "oracle"
Key = tuple[str, str, str, str]  # model, method, size, target
Gains = dict[Key, dict[str, list[np.ndarray]]]  # by dataset in the RI, (replicates,) for each seed
Variants = Mapping[str, Sequence[str]]  # by method, in the order of the grid


class Choice(NamedTuple):
    """A choice among the variants of a method, for one model, size and target."""

    # (datasets or 1, replicates) index of the variant that each dataset, or all of them, choose
    best: np.ndarray
    # (seeds, replicates) RI of the choice in percentage points; NaN without images to choose by
    ri: np.ndarray
    variants: Sequence[str]  # those chosen among
    scores: np.ndarray  # (variants, datasets or 1) by which is chosen, without resampling


def gains_of(
    counts: Counts, weights: np.ndarray, ood_datasets: Collection[str], source_groups: Groups
) -> Gains:
    """Accuracy after fine-tuning minus before, in percentage points; see `ood_accuracies`."""
    targets = {state[2] for state in counts.states} - {NO_TARGET}
    which = ood_datasets, source_groups, counts.shared
    left = {target: on_other_datasets(counts.places, target, *which) for target in targets}
    found: Gains = {}
    for name in ood_datasets:
        own = [
            place
            for place, s in enumerate(counts.states)
            if s[2] == NO_TARGET or name in left[s[2]]
        ]
        pairs = ood_accuracies(counts.of(own), weights, [name], source_groups)
        for (model, method, target, size, *_), pair in pairs.items():
            found.setdefault((model, method, size, target), {}).setdefault(name, []).append(
                pair.change
            )
    return found


def select_accuracies(
    rows: Sequence[Path], indexes: Sequence[Path], draws: int, seed: int
) -> dict[Key, list[np.ndarray]]:
    """Accuracy on the select split of the target, in percent, from its rows: (1 + draws,) for each seed."""
    parts = (
        (replace(run, target=NO_TARGET), part) for run, part in read_rows_of(rows)
    )  # one state, all targets
    counts, found = count(parts, read_objects(indexes)), {}
    weights = object_weights(
        counts.objects, draws, (seed, 1)
    )  # other draws than those of the test objects
    for target in counts.datasets:
        accuracies = counts.accuracy_on(target, weights, EVERY, EVERY).T
        for (model, method, _, size, *_), own in zip(counts.states, accuracies, strict=True):
            found.setdefault((model, method, size, target), []).append(own)
    return found


def choices_of(
    gains: Gains,
    select: Mapping[Key, Sequence[np.ndarray]],
    rule: str,
    variants: Variants,
    groups: Mapping[str, str],
) -> dict[Key, Choice]:
    """Choose the variant with the highest score in every replicate, the first of equal ones.

    Args:
        gains, select: of `gains_of`, and for the rule target of `select_accuracies`.
        variants: a choice is among those with gains, and for the rule target with accuracies:
            in a whole grid all of a method that the model has, in a preview the finished ones,
            if there are at least two.
        groups: source group of each dataset in an RI, its own name if it shares no source images.

    Returns:
        By method, not variant.
    """
    scored = gains.keys() & select.keys() if rule == "target" else gains.keys()
    found = {}
    for method, all_names in variants.items():
        cells = {(model, size, target) for model, name, size, target in scored if name in all_names}
        for model, size, target in sorted(cells):
            names = [name for name in all_names if (model, name, size, target) in scored]
            if len(names) < min(2, len(all_names)):
                continue  # a preview has only one of several variants, so there is no choice
            keys = [(model, name, size, target) for name in names]
            every = np.array(
                [list(gains[key].values()) for key in keys]
            )  # (variants, datasets, seeds, replicates)
            means = every.mean(axis=2)
            if rule == "target":
                scores = np.array([np.mean(select[key], axis=0) for key in keys])[:, None]
            elif rule == "leave_one_out":
                own = [groups[name] for name in gains[keys[0]]]
                others = [
                    [group not in (scored, groups[target]) for group in own] for scored in own
                ]
                scores = np.stack([means[:, places].mean(axis=1) for places in others], axis=1)
            else:
                scores = means.mean(axis=1, keepdims=True)
            best = np.round(scores, DECIMALS).argmax(axis=0)
            taken = np.take_along_axis(every, best[None, :, None], axis=0)[0]
            ri = np.where(np.isnan(scores).any(axis=0)[:, None], np.nan, taken).mean(axis=0)
            found[model, method, size, target] = Choice(best, ri, names, scores[:, :, 0])
    return found


def selection_table(choices: Mapping[Key, Choice], rule: str, confidence: float) -> pd.DataFrame:
    """One row per model, method, size and target, and one for mRI (target `mean`), with the columns `TABLE`.

    chosen is the variant that most datasets choose without resampling, tied_with the others with the same score,
    select_accuracy its accuracy in percent on the select split (rule target), chosen_share the percentage of replicates
    and datasets that choose it, variants their number; ri, ci_low and ci_high are in percentage points, without an
    interval for the oracle.
    """
    lines = []
    for (model, method, size), group in itertools.groupby(
        choices.items(), lambda item: item[0][:3]
    ):
        named = f"{rule} (upper bound)" if rule == ORACLE else rule
        run, found = (model, method, named, size), []
        for (*_, target), (best, ri, names, scores) in group:
            chosen = np.bincount(best[:, 0]).argmax()
            accuracy = scores[chosen, 0] if rule == "target" else np.nan
            choice = (names[chosen], tied_with(scores, names, chosen), accuracy)
            share = 100 * (best[:, 1:] == chosen).mean()
            lines.append(
                (*run, target, *choice, share, len(names), *_estimate(ri[None], rule, confidence))
            )
            found.append(ri)
        no_choice = (None, None, np.nan, np.nan)
        lines.append(
            (*run, MEAN, *no_choice, len(names), *_estimate(np.array(found), rule, confidence))
        )
    return pd.DataFrame(lines, columns=TABLE)


def tied_with(scores: np.ndarray, names: Sequence[str], chosen: int) -> str:
    """Other variants with the score of the chosen one on all datasets that choose; it stands first in the grid."""
    rounded = np.round(scores, DECIMALS)
    same = (rounded == rounded[chosen]).all(axis=1)
    return ", ".join(name for number, name in enumerate(names) if same[number] and number != chosen)


def _estimate(values: np.ndarray, rule: str, confidence: float) -> tuple[float, float, float]:
    """RI with its interval, see `over_runs`; that of the oracle without one."""
    mean, low, high = over_runs(values, confidence)
    return (mean, np.nan, np.nan) if rule == ORACLE else (mean, low, high)


def selections(
    *,
    counts: Path,
    rule: str,
    variants: Variants,
    groups: Mapping[str, str],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    replicates: int,
    confidence: float,
    seed: int,
    rows: Sequence[Path] = (),
    indexes: Sequence[Path] = (),
) -> pd.DataFrame:
    """`selection_table` of all models.

    Args:
        rule, variants, groups: see `choices_of`.
        rows: for the rule target, rows of the variants on the select split of their target.
    """
    select = select_accuracies(rows, indexes, replicates, seed) if rows else {}
    found = []
    for of_model in read_counts(counts):
        gains = gains_of(
            of_model,
            object_weights(of_model.objects, replicates, seed),
            ood_datasets,
            source_groups,
        )
        choices = choices_of(gains, select, rule, variants, groups)
        found.append(selection_table(choices, rule, confidence))
    return pd.concat(found)
