"""Choice of a variant of each sweep (a method's recipes and swept settings), and RI of the choice.

No torch. The variant with the highest accuracy, averaged over seeds, is chosen; of equal ones the
first. The rules differ in the images that count:

    target         on the target's select split (protocol held_out)
    leave_one_out  for each dataset j in the RI, on datasets in the RI that share no source images
                   with j or the target. RI is the mean gain on j of the variant chosen for j: of a
                   procedure, not of one network, that uses OOD labels.
    oracle         on all datasets in the RI: an upper bound

Every bootstrap replicate chooses again, by the mean over the same seeds. Select images have
separate draws. With three or more seeds, intervals are `over_runs` of the chosen runs; they leave
out how much other seeds would change the choice.

The oracle has no interval. It chooses by its final score, so its RI is above the RI of the truly
best variant, the more so the more variants are alike, and each replicate chooses by its own chance
on top: with 200 objects, one seed and eight equal variants, 95 % percentile intervals include the
truth in less than half of all cases.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rib.base.params import from_params
from rib.schema.run import MEAN, NO_TARGET
from rib.statistics.bootstrap import object_weights, over_runs
from rib.statistics.counts import Counts, RowFiles, read_counts
from rib.statistics.inputs import Inputs
from rib.statistics.objects import ALL_INDICES, SourceGroups
from rib.statistics.ri import ood_accuracies
from rib.statistics.select_splits import count_on_select_splits
from rib.statistics.statistics_settings import RIStatistics

DECIMALS = 9  # percentage points; a smaller difference is a rounding error
TABLE = [
    "model",
    "method",
    "rule",
    "size",
    "target",
    "chosen",
    "tied_with",
    "select_accuracy",
    "chosen_share",
    "variants",
    "ri",
    "ci_low",
    "ci_high",
]
ORACLE = "oracle"
TARGET_RULE = "target"
LEAVE_ONE_OUT = "leave_one_out"


class Trained(NamedTuple):
    """A method, or a variant of one, on a model, size and target; it has a run for each seed."""

    model: str
    method: str
    size: str
    target: str


# Changes of accuracy by dataset in the RI, (replicates,) for each seed.
Gains = dict[Trained, dict[str, list[np.ndarray]]]
Variants = Mapping[str, Sequence[str]]  # {"lora": ["lora-rank4", "lora-rank8"]}, in grid order


class ChosenVariant(NamedTuple):
    """A choice among the variants of a method, for one model, size and target."""

    # (datasets, replicates) index of the chosen variant; (1, replicates) if all datasets share it
    best: np.ndarray
    # (seeds, replicates) percentage points; NaN without images to choose by
    ri: np.ndarray
    variants: Sequence[str]  # names
    scores: np.ndarray  # (variants, datasets or 1) by which it is made, without resampling


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table selection to write: chosen variant, such as `ft-lr0.1`, and its RI."""
    params = inputs.params
    selection = select_variants(
        inputs.path("counts"),
        inputs.rows(params["methods"]),
        ri=from_params(RIStatistics, params["ri"]),
        rule=params["rule"],
        variants=params["variants"],
        groups=params["groups"],
    )
    return {"selection": selection}


def gains_of(
    counts: Counts, weights: np.ndarray, ood_datasets: Collection[str], source_groups: SourceGroups
) -> Gains:
    """Accuracy after fine-tuning minus before on each dataset, in percentage points.

    Args:
        weights: (replicates, objects), how often a bootstrap replicate counts each object.

    Returns:
        By method, model, size and target, then dataset in the RI, a list over seeds of
        (replicates,), such as {Trained("net", "ft", "all", "noto"): {"twemoji": [[-1.2, -0.9]]}}.
    """
    targets = {state.run.target for state in counts.states} - {NO_TARGET}
    datasets_of_target = {
        target: counts.counted(target, ood_datasets, source_groups) for target in targets
    }
    gains: Gains = {}
    for dataset in ood_datasets:
        states_with_dataset = []  # pretrained states, and runs with this dataset in their RI
        for i, state in enumerate(counts.states):
            target = state.run.target
            if target == NO_TARGET or dataset in datasets_of_target[target]:
                states_with_dataset.append(i)
        # RI over this dataset alone is the gain on it.
        counts_of_states = counts.select_states(states_with_dataset)
        ood = ood_accuracies(counts_of_states, weights, [dataset], source_groups)
        for state, accuracies in ood.items():
            run = state.run
            trained = Trained(run.model, run.method, run.size, run.target)
            gains_of_trained = gains.setdefault(trained, {})
            gains_of_trained.setdefault(dataset, []).append(accuracies.change)
    return gains


def select_accuracies(
    files: RowFiles, replicates: int, seed: int
) -> dict[Trained, list[np.ndarray]]:
    """Accuracy (percent) on the target's select split, held out for choices.

    By trained variant, (1 + replicates,) for each seed.
    """
    counts = count_on_select_splits(files)
    # A pair as seed gives other draws than for the test objects.
    weights = object_weights(counts.objects, replicates, (seed, 1))
    accuracies: dict[Trained, list[np.ndarray]] = {}
    for target in counts.datasets:
        accuracies_of_states = counts.accuracy_on(target, weights, ALL_INDICES, ALL_INDICES).T
        for state, accuracy in zip(counts.states, accuracies_of_states, strict=True):
            trained = Trained(state.run.model, state.run.method, state.run.size, target)
            accuracies.setdefault(trained, []).append(accuracy)
    return accuracies


def choices_of(
    gains: Gains,
    select: Mapping[Trained, Sequence[np.ndarray]],
    rule: str,
    variants: Variants,
    groups: Mapping[str, str],
) -> dict[Trained, ChosenVariant]:
    """Choose the variant with the highest score in every replicate, the first of equal ones.

    Args:
        gains: by trained variant, as `gains_of` gives them.
        select: for the rule target, accuracies as `select_accuracies` gives them.
        rule: `target`, `leave_one_out` or `oracle`.
        variants: variants by method, such as {"lora": ["lora-rank4", "lora-rank8"]}. Variants with
            gains (and, for the rule target, accuracies) can be chosen; a preview has only the
            finished ones, which must be at least two.
        groups: source group of each dataset in an RI, its own name if it shares no source images:
            {"fluent_flat": "fluent", "fluent_3d": "fluent", "noto": "noto"}.

    Returns:
        One choice per model, method (not variant), size and target.
    """
    scored = set(gains)
    if rule == TARGET_RULE:
        scored &= select.keys()
    choices = {}
    for method, variants_of_method in variants.items():
        models_sizes_targets = {
            (trained.model, trained.size, trained.target)
            for trained in scored
            if trained.method in variants_of_method
        }
        for model, size, target in sorted(models_sizes_targets):
            candidates = [Trained(model, variant, size, target) for variant in variants_of_method]
            candidates = [candidate for candidate in candidates if candidate in scored]
            if len(candidates) < min(2, len(variants_of_method)):
                continue  # a preview with one of several variants: no choice
            gains_of_candidates = [gains[candidate] for candidate in candidates]
            if rule == TARGET_RULE:
                scores = _select_scores([select[candidate] for candidate in candidates])
            elif rule == LEAVE_ONE_OUT:
                scores = _leave_one_out_scores(gains_of_candidates, groups, groups[target])
            else:
                scores = _oracle_scores(gains_of_candidates)
            choices[Trained(model, method, size, target)] = _choice(
                gains_of_candidates, scores, [candidate.method for candidate in candidates]
            )
    return choices


def _select_scores(select_of_candidates: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Scores of the rule target: accuracy on select splits, (variants, 1, replicates)."""
    scores = np.array([np.mean(of_seeds, axis=0) for of_seeds in select_of_candidates])
    return scores[:, None]


def _oracle_scores(
    gains_of_candidates: Sequence[Mapping[str, Sequence[np.ndarray]]],
) -> np.ndarray:
    """Scores of the rule oracle: RI of each variant, (variants, 1, replicates)."""
    means_over_seeds = _array_of(gains_of_candidates).mean(axis=2)
    return means_over_seeds.mean(axis=1, keepdims=True)


def _array_of(gains_of_candidates: Sequence[Mapping[str, Sequence[np.ndarray]]]) -> np.ndarray:
    """Gains as an array (variants, datasets, seeds, replicates)."""
    return np.array([list(gains.values()) for gains in gains_of_candidates])


def _leave_one_out_scores(
    gains_of_candidates: Sequence[Mapping[str, Sequence[np.ndarray]]],
    groups: Mapping[str, str],
    group_of_target: str,
) -> np.ndarray:
    """Scores for each dataset: mean gains on datasets of other sources (groups).

    (variants, datasets, replicates).
    """
    means_over_seeds = _array_of(gains_of_candidates).mean(axis=2)
    groups_of_datasets = [groups[dataset] for dataset in gains_of_candidates[0]]
    scores = []
    for group_of_dataset in groups_of_datasets:
        excluded = (group_of_dataset, group_of_target)
        is_scored_by = [group not in excluded for group in groups_of_datasets]
        scores.append(means_over_seeds[:, is_scored_by].mean(axis=1))
    return np.stack(scores, axis=1)


def _choice(
    gains_of_candidates: Sequence[Mapping[str, Sequence[np.ndarray]]],
    scores: np.ndarray,
    variants: Sequence[str],
) -> ChosenVariant:
    """The variants with the best scores, and their RI."""
    gains = _array_of(gains_of_candidates)  # (variants, datasets, seeds, replicates)
    # `scores` are (variants, datasets, replicates), or have one row in place of the datasets.
    best = np.round(scores, DECIMALS).argmax(axis=0)  # (datasets or 1, replicates)
    gains_of_best = np.take_along_axis(gains, best[None, :, None], axis=0)[0]
    has_no_images = np.isnan(scores).any(axis=0)[:, None]  # (datasets or 1, 1, replicates)
    ri = np.where(has_no_images, np.nan, gains_of_best).mean(axis=0)  # (seeds, replicates)
    scores_without_resampling = scores[:, :, 0]
    return ChosenVariant(best, ri, variants, scores_without_resampling)


def selection_table(
    choices: Mapping[Trained, ChosenVariant], rule: str, confidence: float
) -> pd.DataFrame:
    """RI of each choice, and of their mean over targets (target `mean`), with the columns `TABLE`.

    chosen is the variant that most datasets choose without resampling; tied_with the other variants
    with the same score; select_accuracy the percent on the select split (rule target); chosen_share
    the percentage of replicates and datasets that choose it; variants their number. ri, ci_low and
    ci_high are in percentage points, without an interval for the oracle.

    Args:
        choices: by model, method, size and target, as `choices_of` gives them.
        rule: `target`, `leave_one_out` or `oracle`.
    """
    shown_rule = rule
    if rule == ORACLE:
        shown_rule = f"{rule} (upper bound)"
    choices_of_group: dict[tuple[str, str, str], dict[str, ChosenVariant]] = {}
    for trained, choice in choices.items():
        model_method_size = (trained.model, trained.method, trained.size)
        choices_of_group.setdefault(model_method_size, {})[trained.target] = choice
    lines: list[dict[str, Any]] = []
    for (model, method, size), choice_of_target in choices_of_group.items():
        group = {"model": model, "method": method, "rule": shown_rule, "size": size}
        for target, choice in choice_of_target.items():
            choice_columns = _choice_columns(choice, rule)
            ri_columns = _ri_columns(choice.ri[None], rule, confidence)
            lines.append({**group, "target": target, **choice_columns, **ri_columns})
        choices_of_targets = list(choice_of_target.values())
        variants = len(choices_of_targets[-1].variants)
        ri_of_targets = np.array([choice.ri for choice in choices_of_targets])
        mean_columns = _ri_columns(ri_of_targets, rule, confidence)
        lines.append({**group, "target": MEAN, "variants": variants, **mean_columns})
    return pd.DataFrame(lines, columns=TABLE)


def _choice_columns(choice: ChosenVariant, rule: str) -> dict[str, Any]:
    """Columns that describe a choice: {"chosen": "lora-rank4", "tied_with": "", ...}."""
    best_without_resampling = choice.best[:, 0]  # (datasets or 1,)
    best_of_replicates = choice.best[:, 1:]
    chosen = int(np.bincount(best_without_resampling).argmax())  # by most datasets
    select_accuracy = np.nan
    if rule == TARGET_RULE:
        select_accuracy = choice.scores[chosen, 0]
    return {
        "chosen": choice.variants[chosen],
        "tied_with": tied_with(choice.scores, choice.variants, chosen),
        "select_accuracy": select_accuracy,
        "chosen_share": 100 * (best_of_replicates == chosen).mean(),
        "variants": len(choice.variants),
    }


def tied_with(scores: np.ndarray, variants: Sequence[str], chosen: int) -> str:
    """Other variants with the same score as the chosen one on all datasets, such as "ft-lr0.01"."""
    rounded = np.round(scores, DECIMALS)
    has_same_scores = (rounded == rounded[chosen]).all(axis=1)
    tied = [variant for i, variant in enumerate(variants) if has_same_scores[i] and i != chosen]
    return ", ".join(tied)


def _ri_columns(ri: np.ndarray, rule: str, confidence: float) -> dict[str, float]:
    """{"ri": -1.2, "ci_low": -2.0, "ci_high": -0.4}; the oracle has no interval."""
    mean, low, high = over_runs(ri, confidence)
    if rule == ORACLE:
        return {"ri": mean, "ci_low": np.nan, "ci_high": np.nan}
    return {"ri": mean, "ci_low": low, "ci_high": high}


def select_variants(
    counts: Path,
    select_files: RowFiles,
    *,
    ri: RIStatistics,
    rule: str,
    variants: Variants,
    groups: Mapping[str, str],
) -> pd.DataFrame:
    """RI of the chosen variants of all models, with the columns `TABLE`.

    Args:
        counts: file of the grid's counts.
        select_files: for the rule target, rows of the variants on the select split of their target,
            and indexes of these targets; for other rules, without rows.
        rule: `target`, `leave_one_out` or `oracle`.
        variants: variants by method, such as {"lora": ["lora-rank4", "lora-rank8"]}.
        groups: source group of each dataset in an RI, its own name if it shares no source images:
            {"fluent_flat": "fluent", "fluent_3d": "fluent", "noto": "noto"}.
    """
    select = {}
    if select_files.rows:
        select = select_accuracies(select_files, ri.replicates, ri.seed)
    tables = []
    for counts_of_model in read_counts(counts):
        weights = object_weights(counts_of_model.objects, ri.replicates, ri.seed)
        gains = gains_of(counts_of_model, weights, ri.ood_datasets, ri.source_groups)
        choices = choices_of(gains, select, rule, variants, groups)
        tables.append(selection_table(choices, rule, ri.confidence))
    return pd.concat(tables)
