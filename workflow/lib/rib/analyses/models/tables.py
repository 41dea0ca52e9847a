"""Comparison of pretrained models fine-tuned with the same method: differences and ranks.

Differences, intervals and p are contrasts (`rib.statistics.contrast`) of models, by mRI and by
accuracy before and after fine-tuning. Holm's correction is over all tests of a method and size,
pairs times measures. A model with an underfitted run of the method has no ranks, and no tests of
mRI and of accuracy after fine-tuning.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from rib.base.errors import UserError
from rib.base.params import from_params
from rib.schema.run import NO_TARGET
from rib.statistics.bootstrap import LIMITS, object_weights, over_runs
from rib.statistics.contrast import (
    Measure,
    Measured,
    all_pairs,
    contrasts,
    most_seeds,
    over_targets_and_seeds,
    paired_p,
)
from rib.statistics.counts import Counts, read_counts, read_states
from rib.statistics.fit import underfitted_methods
from rib.statistics.inputs import Inputs
from rib.statistics.ri import ood_accuracies, ood_parts, ri_objects
from rib.statistics.scored_state import ScoredState
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tests import DRAWS

MEASURES = ("mri", "ood_before", "ood_after")
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
# Measures of each method and size, by name: {("ft", "all"): {"mri": ..., "ood_before": ...}}.
MeasuresOfMethods = Mapping[tuple[str, str], Mapping[str, Measure]]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: model_comparisons (pairs) and model_ranks."""
    return model_tables(
        inputs.path("counts"),
        inputs.path("fit"),
        ri=from_params(RIStatistics, inputs.params["ri"]),
        methods=inputs.params["methods"],
    )


def measures_of_models(
    models: Iterable[Counts],
    methods: Collection[tuple[str, str]],
    weights: np.ndarray,
    underfitted: Collection[tuple[str, str, str]],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
) -> MeasuresOfMethods:
    """mRI and accuracies by which models are compared, by method and size, then by name.

    An example is {("ft", "all"): {"mri": Measure(name="mri", family=("ft", "all"), units={"net":
    ...})}}.

    Args:
        models: right answers of each model, whose runs of `methods` have the same targets and
            seeds (merges over seeds: one seed).
        methods: methods with a training subset, such as [("ft", "all")].
        weights: (1 + replicates, objects), how often a bootstrap replicate counts each object.
        underfitted: model, method and size of underfitted runs, such as [("net", "ft", "all")].
        ood_datasets: out-of-distribution datasets, which count in RI.
        source_groups: source group by dataset, for leak-free results; None counts all images.
    """
    units: dict[tuple[str, str], dict[str, dict[str, Measured]]] = {}
    for counts in models:
        model = counts.states[0].run.model
        counts_of_methods = _with_methods(counts, methods)
        ood = ood_accuracies(counts_of_methods, weights, ood_datasets, source_groups)
        # By method and size, (targets, seeds, 2, ...) before and after fine-tuning: accuracies of
        # replicates, and what each object adds to them.
        accuracies = over_targets_and_seeds(
            {state: np.array([of_run.before, of_run.after]) for state, of_run in ood.items()}
        )
        parts = over_targets_and_seeds(ood_parts(counts_of_methods, ood_datasets, source_groups))
        for method_and_size, of_runs in accuracies.items():
            values = _by_measure(of_runs[:, :, 0], of_runs[:, :, 1])
            contributions = _by_measure(*parts[method_and_size].mean(axis=(0, 1)))
            is_fitted = (model, *method_and_size) not in underfitted
            units_of_measures = units.setdefault(method_and_size, {})
            for name in MEASURES:
                units_of_measures.setdefault(name, {})[model] = Measured(
                    values=values[name],
                    contributions=contributions[name],
                    is_fitted=is_fitted or name not in MEASURES_AFTER,
                )
    return {
        method_and_size: {
            name: Measure(name=name, family=method_and_size, units=units_of_measure)
            for name, units_of_measure in units_of_measures.items()
        }
        for method_and_size, units_of_measures in units.items()
    }


def _by_measure(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `MEASURES`, from accuracies before and after fine-tuning or from parts of them."""
    return {"mri": after - before, "ood_before": before, "ood_after": after}


def _with_methods(counts: Counts, methods: Collection[tuple[str, str]]) -> Counts:
    """Counts of the runs of these methods and sizes, and of the pretrained model."""
    chosen = []
    for i, state in enumerate(counts.states):
        if state.is_pretrained or (state.run.method, state.run.size) in methods:
            chosen.append(i)
    return counts.select_states(chosen)


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


def rank(measures: Mapping[str, Measure], seeds: int, confidence: float) -> pd.DataFrame:
    """Models' accuracies before and after a method, and their ranks (1 is best).

    Kendall's tau shows whether fine-tuning keeps their order. Models without a test of mRI are not
    ranked.

    Args:
        measures: of the method, by name: {"mri": ..., "ood_before": ..., "ood_after": ...}.
        seeds: number of seeds of the methods that aren't merges over seeds.

    Returns:
        One row per model: model, ood_before, before_low, before_high, ood_after, after_low,
        after_high (percent, with confidence intervals), rank_before, rank_after, and Kendall's tau
        of the ranked models with its p, tau_p, NaN with fewer than five of them.
    """
    rows = []
    for model in measures["mri"].units:
        before = over_runs(measures["ood_before"].units[model].values, confidence, LIMITS)
        after = over_runs(measures["ood_after"].units[model].values, confidence, LIMITS)
        rows.append((model, *before, *after))
    table = pd.DataFrame(rows, columns=["model", *ACCURACIES])

    is_ranked = np.array([of_unit.is_tested(seeds) for of_unit in measures["mri"].units.values()])
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
    measures_of_methods = measures_of_models(
        read_counts(counts),
        methods_and_sizes,
        object_weights(first_counts.objects, ri.replicates, ri.seed),
        underfitted_methods(fit),
        ood_datasets,
        source_groups,
    )
    measures: list[Measure] = []
    for measures_of_method in measures_of_methods.values():
        measures += measures_of_method.values()
    comparisons = _comparisons(measures, ri, draws)
    targets = {state.run.target for state in first_counts.states} - {NO_TARGET}
    objects = ri_objects(first_counts, targets, ood_datasets, source_groups)
    comparisons["objects"] = objects[None]
    seeds = most_seeds(measures)
    ranks = {
        method_and_size: rank(measures_of_method, seeds, ri.confidence)
        for method_and_size, measures_of_method in measures_of_methods.items()
    }
    return {
        "model_comparisons": comparisons[[*KEY, *PAIR]],
        "model_ranks": pd.concat(ranks, names=KEY).reset_index(KEY),
    }


def _comparisons(measures: Sequence[Measure], ri: RIStatistics, draws: int) -> pd.DataFrame:
    """One row per tested pair of models and measure, sorted by method, size and pair."""
    pairs = all_pairs(measures[0].units)
    p = paired_p(measures, pairs, draws, ri.seed)
    table = contrasts(measures, pairs, p, ri.confidence).dropna(subset=["p"])
    table = table.rename(columns={"unit": "model", "other_unit": "other_model"})
    # A family is a method and size. There may be no rows.
    table[KEY] = pd.DataFrame(table["family"].tolist(), table.index, KEY)
    return table.sort_values([*KEY, "model", "other_model"], kind="stable")


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
