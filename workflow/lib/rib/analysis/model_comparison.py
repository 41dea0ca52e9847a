"""Comparison of pretrained models that were fine-tuned with the same method: paired differences, and ranks.

All models are scored on the same images and share the draws of objects, so differences are paired. Intervals and tests
are those of `rib.analysis.comparison`; Holm's correction is over all tests of a method and size, pairs times measures. A
model with an unfinished run of the method has no ranks, and no tests of mRI and of accuracy after fine-tuning.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from rib.analysis.bootstrap import LIMITS, object_weights, over_runs
from rib.analysis.comparison import DRAWS, Column, Effects, compare
from rib.analysis.counts import Counts, read_counts, read_states
from rib.analysis.fit import read_table
from rib.analysis.ri import ood_accuracies, ood_parts, ri_objects
from rib.base.errors import UserError
from rib.config.run import NO_TARGET

# As weights of the mean accuracy on the other datasets before and after fine-tuning.
MEASURES = {"mri": (-1, 1), "ood_before": (1, 0), "ood_after": (0, 1)}
FEWEST_MODELS = 5  # for Kendall's tau
DECIMALS = 9  # of accuracies in percent; what differs by less is a rounding error
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


def effects_of(
    models: Iterable[Counts],
    methods: Collection[tuple],
    weights: np.ndarray,
    unfinished: Collection[tuple],
    **which,
) -> Effects:
    """Effects of models; a column is a method, size and measure, and its places in `values` are targets.

    Args:
        models: counts of each model, whose runs of `methods` have the same targets and seeds (a merge over seeds, one).
        methods: methods with a size.
        weights: (1 + replicates, objects), see `object_weights`.
        unfinished: model, method and size of unfinished runs.
        which: ood_datasets and source_groups, see `ood_accuracies`.
    """
    names, values, parts, measures = [], [], [], np.array(list(MEASURES.values()))
    for of_model in models:
        counts = of_model.select_states(
            [
                i
                for i, state in enumerate(of_model.states)
                if state.run.values(KEY) in methods or state.is_pretrained
            ]
        )
        ood, of_objects = ood_accuracies(counts, weights, **which), ood_parts(counts, **which)
        states = sorted(ood, key=lambda state: state.run.values([*KEY, "target", "seed"]))
        keys, targets = (
            sorted({state.run.values(KEY) for state in states}),
            len({state.run.target for state in states}),
        )
        columns = [(*key, measure) for key in keys for measure in MEASURES]
        by_key = [[state for state in states if state.run.values(KEY) == key] for key in keys]
        scored = [
            measures @ np.array([(ood[state].before, ood[state].after) for state in own])
            for own in by_key
        ]
        by_measure = [
            np.moveaxis(part.reshape(targets, -1, *part.shape[1:]), 2, 0) for part in scored
        ]
        seeds = max(part.shape[2] for part in by_measure)
        every = np.concatenate(
            [np.repeat(part, seeds // part.shape[2], axis=2) for part in by_measure]
        )
        values.append(every.reshape(len(columns) * targets, seeds, -1))
        once = {key for key, part in zip(keys, by_measure, strict=True) if part.shape[2] < seeds}
        means = [np.mean([of_objects[state] for state in own], axis=0) for own in by_key]
        parts.append((measures @ np.array(means)).reshape(len(columns), -1))
        names.append(states[0].run.model)
    return Effects(
        names=names,
        columns={
            name: Column(name[:2], slice(i * targets, (i + 1) * targets))
            for i, name in enumerate(columns)
        },
        values=np.array(values),
        contributions=np.array(parts),
        untested={
            (model, (*key, measure))
            for model, *key in unfinished
            for measure in ("mri", "ood_after")
        },
        with_one_run={(name, column) for name in names for column in columns if column[:2] in once},
    )


def kendall_tau(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b between two measures of models, (models,) each, and its two-sided p.

    The p value is of the hypothesis that the order after has nothing to do with the order before:
    of these models and values, every pairing of the two orders is equally likely. It is exact if
    no two models have equal values, else by the normal approximation.

    There is no interval: resampling objects shuffles models that are close, so the tau of replicates
    is nearer to 0 than the observed one.

    Returns:
        tau, -1 to 1, and p, 0 to 1; both NaN if all models have the same value before or after.

    Raises:
        UserError: fewer than five models.

    Source: Kendall 1945 (doi 10.1093/biomet/33.3.239).
    """
    if (models := len(before)) < FEWEST_MODELS:
        raise UserError(
            f"Kendall's tau of {models} models says next to nothing; compare models from five on."
        )
    # Values that differ by a rounding error are equal.
    before_rounded, after_rounded = np.round(before, DECIMALS), np.round(after, DECIMALS)
    result = kendalltau(before_rounded, after_rounded)
    return float(result.statistic), float(result.pvalue)


def rank(effects: Effects, method: str, size: str, confidence: float) -> pd.DataFrame:
    """Models' accuracies before and after with confidence intervals, their ranks (1 is best), and tau of the ranked models.

    tau and tau_p are those of `kendall_tau`, NaN with fewer than five ranked models.
    """
    both = [(method, size, f"ood_{when}") for when in ("before", "after")]
    sides = [
        np.array([effects.values_of(model, column) for model in effects.names]) for column in both
    ]
    lines = [
        (name, *over_runs(before, confidence, LIMITS), *over_runs(after, confidence, LIMITS))
        for name, before, after in zip(effects.names, *sides, strict=True)
    ]
    table = pd.DataFrame(lines, columns=["model", *ACCURACIES])
    ranked = np.array(
        [(model, (method, size, "mri")) not in effects.left_out for model in effects.names]
    )
    ranks = (
        table.loc[ranked, ["ood_before", "ood_after"]]
        .round(DECIMALS)
        .rank(ascending=False, method="min")
        .astype("Int64")
    )
    table = table.join(ranks.set_axis(["rank_before", "rank_after"], axis=1))
    tau, p = np.nan, np.nan
    if ranked.sum() >= FEWEST_MODELS:
        accuracies = table.loc[ranked]
        tau, p = kendall_tau(
            accuracies["ood_before"].to_numpy(), accuracies["ood_after"].to_numpy()
        )
    return table.assign(tau=tau, tau_p=p)


def model_tables(
    *,
    counts: Path,
    fit: Path,
    methods: Collection[str],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    replicates: int,
    confidence: float,
    seed: int,
    draws: int = DRAWS,
) -> dict[str, pd.DataFrame]:
    """Tables of comparisons and ranks, by method and size, from the counts of a grid with at least two models.

    Args:
        fit: CSV file of `rib.analysis.fit.fit_table`, which says what is unfinished.
        methods: methods that all models have, without curves.
    """
    unfinished = (
        read_table(fit)
        .query("unfinished == 'yes'")[["model", *KEY]]
        .itertuples(index=False, name=None)
    )
    which = {"ood_datasets": ood_datasets, "source_groups": source_groups}
    first = next(iter(read_counts(counts)))
    weights = object_weights(first.objects, replicates, seed)
    own: dict[str, set[tuple]] = {}
    for state in read_states(counts):
        methods_and_sizes = own.setdefault(state.run.model, set())
        if state.run.method in methods:
            methods_and_sizes.add(state.run.values(KEY))
    if not (shared := set.intersection(*own.values())):  # as in a preview
        raise UserError("models can't be compared: they have no method and size in common.")
    effects = effects_of(read_counts(counts), shared, weights, unfinished, **which)
    compared = compare(effects, confidence, draws, seed).dropna(subset=["p"])
    compared = compared.rename(columns={"method": "model", "other": "other_model"})
    keys = [*KEY, "measure"]
    compared[keys] = pd.DataFrame(
        compared["target"].tolist(), compared.index, keys
    )  # also without rows
    compared["objects"] = ri_objects(
        first, {state.run.target for state in first.states} - {NO_TARGET}, *which.values()
    )[None]
    compared = compared.sort_values([*KEY, *PAIR[:2]], kind="stable")[[*KEY, *PAIR]]
    ranks = {
        key: rank(effects, *key, confidence)
        for key in dict.fromkeys(name[:2] for name in effects.columns)
    }
    return {
        "model_comparisons": compared,
        "model_ranks": pd.concat(ranks, names=KEY).reset_index(KEY),
    }
