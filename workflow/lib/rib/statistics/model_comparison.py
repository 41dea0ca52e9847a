"""Comparison of pretrained models fine-tuned with the same method: differences and ranks.

All models are scored on the same images and share the draws of objects, so differences are paired.
Intervals and tests come from `rib.statistics.comparison`; Holm's correction is over all tests of a
method and size, pairs times measures. A model with an underfitted run of the method has no ranks,
and no tests of mRI and of accuracy after fine-tuning.
"""

import itertools
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from rib.base.errors import UserError
from rib.config.run import NO_TARGET
from rib.statistics.bootstrap import LIMITS, object_weights, over_runs
from rib.statistics.comparison import DRAWS, Column, Effects, compare
from rib.statistics.counts import Counts, read_counts, read_states
from rib.statistics.fit import read_table
from rib.statistics.ri import ood_accuracies, ood_parts, ri_objects
from rib.statistics.scored_state import ScoredState
from rib.statistics.settings import RIStatistics

# Coefficients of the mean accuracy on the other datasets before and after fine-tuning.
MEASURES = {"mri": (-1, 1), "ood_before": (1, 0), "ood_after": (0, 1)}
MEASURES_AFTER = ("mri", "ood_after")  # depend on fine-tuning
FEWEST_MODELS = 5  # for Kendall's tau
MOST_ENUMERATED = 8  # models whose 40,320 pairings take a tenth of a second
DECIMALS = 9  # of percent; smaller differences are rounding errors
KEY = ["method", "size"]
PAIR = [
    "model",
    "other_model",
    "measure",
    "difference",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "objects",
]
ACCURACIES = ["ood_before", "before_low", "before_high", "ood_after", "after_low", "after_high"]


class MeasureOfMethod(NamedTuple):
    """A number by which models are compared, such as MeasureOfMethod("ft", "all", "mri")."""

    method: str
    size: str
    measure: str


@dataclass(frozen=True)
class ModelEffects:
    """One model's part of `Effects`: its mRI and accuracies with each method."""

    model: str
    columns: list[MeasureOfMethod]
    targets: int
    # (columns * targets, seeds, 1 + replicates) percent; the targets of a column are neighbours
    values: np.ndarray
    # (columns, objects) contribution to the mean over runs, percentage points
    contributions: np.ndarray
    # merges over seeds, whose one run is repeated for each seed
    with_one_run: set[MeasureOfMethod]


def effects_of(
    models: Iterable[Counts],
    methods: Collection[tuple[str, str]],
    weights: np.ndarray,
    underfitted: Iterable[tuple[str, str, str]],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
) -> Effects:
    """Values by which models are compared: mRI, and accuracy before and after fine-tuning.

    A column is a method, size and measure, averaged over targets, such as ("ft", "all", "mri").

    Args:
        models: right answers of each model, whose runs of `methods` have the same targets and
            seeds (merges over seeds: one seed).
        methods: methods with a training subset, such as [("ft", "all")].
        weights: (1 + replicates, objects), how often a bootstrap replicate counts each object.
        underfitted: model, method and size of underfitted runs, such as [("net", "ft", "all")].
        ood_datasets: out-of-distribution datasets, which count in RI.
        source_groups: source group by dataset, for leak-free results; None counts all images.
    """
    effects_of_models = []
    for counts in models:
        effects_of_models.append(
            _effects_of_model(counts, methods, weights, ood_datasets, source_groups)
        )
    targets = effects_of_models[0].targets

    columns: dict[Hashable, Column] = {}
    for i, measure_of_method in enumerate(effects_of_models[0].columns):
        family = (measure_of_method.method, measure_of_method.size)
        targets_of_column = slice(i * targets, (i + 1) * targets)
        columns[measure_of_method] = Column(family=family, targets=targets_of_column)
    untested = set()  # models and columns
    for model, method, size in underfitted:
        for measure in MEASURES_AFTER:
            untested.add((model, MeasureOfMethod(method, size, measure)))
    with_one_run = set()  # models and columns
    for effects in effects_of_models:
        for measure_of_method in effects.with_one_run:
            with_one_run.add((effects.model, measure_of_method))
    return Effects(
        names=[effects.model for effects in effects_of_models],
        columns=columns,
        values=np.array([effects.values for effects in effects_of_models]),
        contributions=np.array([effects.contributions for effects in effects_of_models]),
        untested=untested,
        with_one_run=with_one_run,
    )


def _effects_of_model(
    counts: Counts,
    methods: Collection[tuple[str, str]],
    weights: np.ndarray,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
) -> ModelEffects:
    """Values of one model; columns are its methods and sizes, sorted, each with all `MEASURES`."""
    counts = _with_methods(counts, methods)
    ood = ood_accuracies(counts, weights, ood_datasets, source_groups)
    contributions_of_states = ood_parts(counts, ood_datasets, source_groups)
    states_of_methods = _states_of_methods(ood)
    targets = len({state.run.target for state in ood})
    # (measures, 2): coefficients of accuracy before and after, such as -1 and 1 for mRI.
    measures = np.array(list(MEASURES.values()))

    columns = []
    values_of_methods = []  # (measures, targets, seeds, 1 + replicates) per method
    contributions_of_methods = []  # (measures, objects) per method
    for (method, size), states in states_of_methods.items():
        columns += [MeasureOfMethod(method, size, measure) for measure in MEASURES]
        before_and_after = np.array([(ood[state].before, ood[state].after) for state in states])
        of_runs = measures @ before_and_after  # (runs, measures, 1 + replicates)
        replicates = of_runs.shape[-1]
        # Runs are sorted by target, then by seed.
        of_targets = of_runs.reshape(targets, -1, len(measures), replicates)
        values_of_methods.append(np.moveaxis(of_targets, 2, 0))
        mean_contributions = np.mean([contributions_of_states[state] for state in states], axis=0)
        contributions_of_methods.append(measures @ mean_contributions)

    seeds = max(values.shape[2] for values in values_of_methods)
    with_one_run = set()
    with_all_seeds = []  # a merge's one run is repeated
    for (method, size), values in zip(states_of_methods, values_of_methods, strict=True):
        seeds_of_method = values.shape[2]
        if seeds_of_method < seeds:
            with_one_run |= {MeasureOfMethod(method, size, measure) for measure in MEASURES}
        with_all_seeds.append(np.repeat(values, seeds // seeds_of_method, axis=2))
    all_values = np.concatenate(with_all_seeds)
    return ModelEffects(
        model=counts.states[0].run.model,
        columns=columns,
        targets=targets,
        values=all_values.reshape(len(columns) * targets, seeds, -1),
        contributions=np.concatenate(contributions_of_methods),
        with_one_run=with_one_run,
    )


def _with_methods(counts: Counts, methods: Collection[tuple[str, str]]) -> Counts:
    """Counts of the runs of these methods and sizes, and of the pretrained model."""
    chosen = []
    for i, state in enumerate(counts.states):
        if state.is_pretrained or (state.run.method, state.run.size) in methods:
            chosen.append(i)
    return counts.select_states(chosen)


def _states_of_methods(states: Iterable[ScoredState]) -> dict[tuple[str, str], list[ScoredState]]:
    """Fine-tuned networks by method and size, {("ft", "all"): [...]}, sorted by target and seed."""

    def sorting_key(state: ScoredState) -> tuple[str, str, str, int]:
        """("ft", "all", "noto", 0)."""
        run = state.run
        return run.method, run.size, run.target, run.seed

    states_of_methods: dict[tuple[str, str], list[ScoredState]] = {}
    for state in sorted(states, key=sorting_key):
        method_and_size = (state.run.method, state.run.size)
        states_of_methods.setdefault(method_and_size, []).append(state)
    return states_of_methods


def kendall_tau(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b between two measures of models, (models,) each, and its two-sided p.

    The hypothesis of p is that the order after has nothing to do with the order before: for these
    models and values, every pairing of the two orders is equally likely. p is exact for up to eight
    models, whose pairings are enumerated, and for up to 33 models without equal values. Else it
    uses the normal approximation, which is too small if many values are equal.

    There is no interval: resampling objects shuffles models that are close, so the tau of
    replicates is nearer to 0 than the observed one.

    Returns:
        tau, -1 to 1, and p, 0 to 1; both NaN if all models have the same value before or after.

    Raises:
        UserError: fewer than five models.

    Source: Kendall 1945 (doi 10.1093/biomet/33.3.239).
    """
    models = len(before)
    if models < FEWEST_MODELS:
        raise UserError(
            f"Kendall's tau of {models} models says next to nothing; compare models from five on."
        )
    # Values that differ by a rounding error are equal.
    before_rounded = np.round(before, DECIMALS)
    after_rounded = np.round(after, DECIMALS)
    correlation = kendalltau(before_rounded, after_rounded)
    tau, p = float(correlation.statistic), float(correlation.pvalue)
    if models <= MOST_ENUMERATED and not np.isnan(tau):
        p = _share_of_pairings(before_rounded, after_rounded)
    return tau, p


def _share_of_pairings(before: np.ndarray, after: np.ndarray) -> float:
    """Share of all pairings of two orders whose tau is at least as far from 0 as observed."""
    # The numerator of tau suffices, concordant minus discordant pairs of models: the denominator
    # depends on ties alone, which no pairing changes.
    first, second = np.triu_indices(len(before), k=1)
    signs_before = np.sign(before[first] - before[second])
    pairings = np.array(list(itertools.permutations(after)))  # (pairings, models), observed first
    signs_after = np.sign(pairings[:, first] - pairings[:, second])
    numerators = np.abs(signs_after @ signs_before)
    return float(np.mean(numerators >= numerators[0]))


def rank(effects: Effects, method: str, size: str, confidence: float) -> pd.DataFrame:
    """Models' accuracies before and after a method, and their ranks (1 is best).

    Kendall's tau shows whether fine-tuning keeps their order. Models that are left out of
    comparisons are not ranked.

    Returns:
        One row per model: model, ood_before, before_low, before_high, ood_after, after_low,
        after_high (percent, with confidence intervals), rank_before, rank_after, and Kendall's tau
        of the ranked models with its p, tau_p, NaN with fewer than five of them.
    """
    before_column = MeasureOfMethod(method, size, "ood_before")
    after_column = MeasureOfMethod(method, size, "ood_after")
    rows = []
    for model in effects.names:
        before = over_runs(effects.values_of(model, before_column), confidence, LIMITS)
        after = over_runs(effects.values_of(model, after_column), confidence, LIMITS)
        rows.append((model, *before, *after))
    table = pd.DataFrame(rows, columns=["model", *ACCURACIES])

    mri_column = MeasureOfMethod(method, size, "mri")
    is_ranked = np.array([(model, mri_column) not in effects.left_out for model in effects.names])
    accuracies = table.loc[is_ranked, ["ood_before", "ood_after"]]
    ranks = accuracies.round(DECIMALS).rank(ascending=False, method="min").astype("Int64")
    table = table.join(ranks.set_axis(["rank_before", "rank_after"], axis=1))
    tau, p = np.nan, np.nan
    if len(accuracies) >= FEWEST_MODELS:
        tau, p = kendall_tau(
            accuracies["ood_before"].to_numpy(), accuracies["ood_after"].to_numpy()
        )
    return table.assign(tau=tau, tau_p=p)


def model_tables(
    counts: Path, fit: Path, *, ri: RIStatistics, methods: Collection[str], draws: int = DRAWS
) -> dict[str, pd.DataFrame]:
    """Tables model_comparisons and model_ranks, by method and size, of a grid with several models.

    Args:
        counts: file of right answers by run, dataset and object (what an image shows), .npz.
        fit: CSV file with the columns model, method, size, underfitted (yes or no).
        methods: such as ["ft", "wise_ft"], each with one network per run, not one for each alpha;
            the methods that all models have are compared.
        draws: number of random sign flips, used with fewer than three seeds and few objects.

    Returns:
        model_comparisons, one row per tested pair and measure: method, size, model, other_model,
        measure (mri, ood_before or ood_after), difference (model minus other_model) and its
        confidence interval ci_low, ci_high (percentage points), p, p_holm, objects (number of
        objects with an image in the RI of any target).
        model_ranks: method, size and the columns of `rank`.

    Raises:
        UserError: the models have no method and size in common.
    """
    ood_datasets = ri.ood_datasets
    source_groups = ri.source_groups
    first_counts = next(iter(read_counts(counts)))
    methods_and_sizes = _shared_methods(read_states(counts), methods)
    effects = effects_of(
        read_counts(counts),
        methods_and_sizes,
        object_weights(first_counts.objects, ri.replicates, ri.seed),
        _underfitted(fit),
        ood_datasets,
        source_groups,
    )

    # `compare` names its columns for methods and targets. Here its columns method and other have
    # models, and its column target has a `MeasureOfMethod`.
    comparisons = compare(effects, ri.confidence, draws, ri.seed).dropna(subset=["p"])
    comparisons = comparisons.rename(columns={"method": "model", "other": "other_model"})
    # There may be no rows.
    measures_of_rows = comparisons["target"].tolist()
    measure_columns = [*KEY, "measure"]
    comparisons[measure_columns] = pd.DataFrame(
        measures_of_rows, comparisons.index, measure_columns
    )
    targets = {state.run.target for state in first_counts.states} - {NO_TARGET}
    objects = ri_objects(first_counts, targets, ood_datasets, source_groups)
    comparisons["objects"] = objects[None]
    comparisons = comparisons.sort_values([*KEY, "model", "other_model"], kind="stable")

    ranks = {}
    for method, size in sorted(methods_and_sizes):
        ranks[method, size] = rank(effects, method, size, ri.confidence)
    return {
        "model_comparisons": comparisons[[*KEY, *PAIR]],
        "model_ranks": pd.concat(ranks, names=KEY).reset_index(KEY),
    }


def _underfitted(fit: Path) -> list[tuple[str, str, str]]:
    """Model, method and size of underfitted runs: [("net", "ft", "all")]."""
    runs = read_table(fit)
    underfitted = runs[runs["underfitted"] == "yes"]
    return list(underfitted[["model", *KEY]].itertuples(index=False, name=None))


def _shared_methods(
    states: Iterable[ScoredState], methods: Collection[str]
) -> set[tuple[str, str]]:
    """{("ft", "all")}: methods and sizes that all models have; a UserError if there are none."""
    methods_of_models: dict[str, set[tuple[str, str]]] = {}
    for state in states:
        run = state.run
        methods_of_model = methods_of_models.setdefault(run.model, set())
        if run.method in methods:
            methods_of_model.add((run.method, run.size))
    shared = set.intersection(*methods_of_models.values())
    if not shared:  # as in a preview
        raise UserError("models can't be compared: they have no method and size in common.")
    return shared
