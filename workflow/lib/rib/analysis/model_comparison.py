"""Comparison of pretrained models that were fine-tuned with the same method: paired differences, and ranks.

All models are scored on the same images and share the draws of objects, so differences are paired. Intervals and tests
are those of `rib.analysis.comparison`; Holm's correction is over all tests of a method and size, pairs times measures. A
model with an unfinished run of the method has no ranks, and no tests of mRI and of accuracy after fine-tuning.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rib.analysis.bootstrap import FEWEST_SEEDS, estimate, object_weights, over_runs, p_over_runs
from rib.analysis.comparison import DRAWS, ROUNDING, holm, sign_flip_p
from rib.analysis.counts import State, read_counts
from rib.analysis.fit import read_table
from rib.analysis.ri import Ood, ood_accuracies, ood_parts, ri_objects
from rib.base.errors import UserError
from rib.base.files import write_table
from rib.config.run import PRETRAINED

# As weights of the mean accuracy on the other datasets before and after fine-tuning.
MEASURES = {"mri": (-1, 1), "ood_before": (1, 0), "ood_after": (0, 1)}
FEWEST_MODELS = 5  # for Kendall's tau
PAIR = ["model", "other_model", "measure", "difference", "ci_low", "ci_high", "p"]
ACCURACIES = ["ood_before", "before_low", "before_high", "ood_after", "after_low", "after_high"]
TAU = ["tau", "tau_low", "tau_high"]


class Scores(NamedTuple):
    """Mean accuracies on the other datasets, before and after fine-tuning, of one model's runs with a method and size."""

    accuracies: np.ndarray  # (2, targets, seeds, 1 + replicates) percent, observed and of each replicate of objects
    parts: np.ndarray  # (2, objects) contributions to the mean over runs


def scores_of(ood: Mapping[State, Ood], parts: Mapping[State, np.ndarray]) -> Scores:
    """Scores of the runs in `parts` (see `rib.analysis.ri.ood_parts`), which are sorted by target and seed."""
    sides = np.array([[ood[state].before for state in parts], [ood[state].after for state in parts]])
    by_target = (2, len({state[2] for state in parts}), -1, sides.shape[2])
    return Scores(sides.reshape(by_target), np.mean(list(parts.values()), axis=0))


def flip_signs(scores: Sequence[Sequence[Scores]], draws: int, seed: int) -> Sequence[np.ndarray | None]:
    """p (pairs of models, measures) of sign flips for each method and size, with the same draws; None with enough seeds."""
    if scores[0][0].accuracies.shape[2] >= FEWEST_SEEDS:
        return [None] * len(scores)
    weights = np.array(list(MEASURES.values()))
    parts = np.stack([[weights @ own.parts for own in models] for models in scores], axis=1)
    pairs = list(itertools.combinations(range(len(parts)), 2))
    p = sign_flip_p(parts.reshape(len(parts), -1, parts.shape[-1]), pairs, draws, seed)
    return p.reshape(len(pairs), -1, len(MEASURES)).swapaxes(0, 1)


def compare(
    scores: Mapping[str, Scores], flipped: np.ndarray | None, unfinished: Collection[str], confidence: float
) -> pd.DataFrame:
    """Differences (model minus other_model) of all pairs of models, with confidence interval, p and Holm-adjusted p.

    Args:
        flipped: (pairs, measures) p of sign flips; None for p over seeds.
    """
    weights, lines = np.array(list(MEASURES.values())), []
    for place, pair in enumerate(itertools.combinations(scores, 2)):
        apart = np.tensordot(weights, scores[pair[0]].accuracies - scores[pair[1]].accuracies, 1)
        for column, measure in enumerate(MEASURES):
            if measure == "ood_before" or not set(unfinished) & set(pair):
                p = p_over_runs(apart[column]) if flipped is None else flipped[place, column]
                lines.append((*pair, measure, *over_runs(apart[column], confidence), p))
    table = pd.DataFrame(lines, columns=PAIR)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def kendall_tau(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between two measures of models, (models, n) each: (n,), NaN where all models tie.

    Raises:
        UserError: fewer than five models.

    Source: Kendall 1945 (doi 10.1093/biomet/33.3.239).
    """
    if (models := len(before)) < FEWEST_MODELS:
        raise UserError(f"Kendall's tau of {models} models says next to nothing; compare models from five on.")
    first, second = np.triu_indices(models, 1)
    differences = np.stack([side[first] - side[second] for side in (before, after)])
    signs = np.where(np.abs(differences) < ROUNDING, 0, np.sign(differences))
    untied = np.sqrt(np.abs(signs).sum(axis=1).prod(axis=0))
    return np.divide(signs.prod(axis=0).sum(axis=0), untied, where=untied > 0, out=np.full(untied.shape, np.nan))


def rank(scores: Mapping[str, Scores], unfinished: Collection[str], confidence: float) -> pd.DataFrame:
    """Models' accuracies before and after with confidence intervals, their ranks (1 is best), and tau of the ranked models.

    The interval of tau resamples objects, with models and training fixed. With fewer than five models tau is NaN.
    """
    lines = []
    for model, own in scores.items():
        before, after = (over_runs(side, confidence) for side in own.accuracies)
        lines.append((model, *before, *after))
    table = pd.DataFrame(lines, columns=["model", *ACCURACIES])
    ranked = ~table["model"].isin(list(unfinished))
    for when in ("before", "after"):
        rounded = table[f"ood_{when}"].where(ranked).round(9)
        table[f"rank_{when}"] = rounded.rank(ascending=False, method="min").astype("Int64")
    tau = 3 * (np.nan,)
    if ranked.sum() >= FEWEST_MODELS:
        means = np.stack([scores[model].accuracies.mean(axis=(1, 2)) for model in table["model"][ranked]], axis=1)
        tau = estimate(kendall_tau(*means), confidence)
    return table.assign(**dict(zip(TAU, tau, strict=True)))


def write_model_comparisons(
    *,
    counts: Path,
    fit: Path,
    methods: Collection[str],
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    draws: int = DRAWS,
    model_comparisons: Path,
    model_ranks: Path,
) -> None:
    """Write both tables, by method and size, from the counts of a grid with at least two models.

    Args:
        fit: CSV file of `rib.analysis.fit.fit_table`, which says what is unfinished.
        methods: methods that all models have, without curves.
    """
    scores: dict[tuple[str, str], dict[str, Scores]] = {}
    weights = None
    for model in read_counts(counts):
        if weights is None:
            weights = object_weights(model.objects, replicates, seed)
        model = model.of([place for place, state in enumerate(model.states) if state[1] in (*methods, PRETRAINED)])
        ood = ood_accuracies(model, weights, ood_datasets, source_groups)
        for key in sorted({(state[1], state[3]) for state in ood}):
            own = [place for place, s in enumerate(model.states) if (s[1], s[3]) == key or s[1] == PRETRAINED]
            parts = ood_parts(model.of(own), ood_datasets, source_groups)
            scores.setdefault(key, {})[model.states[0][0]] = scores_of(ood, parts)
    unfinished = read_table(fit).query("unfinished == 'yes'")
    objects = ri_objects(model, {state[2] for state in ood}, ood_datasets, source_groups)[None]
    flipped = flip_signs([list(models.values()) for models in scores.values()], draws, seed)
    compared, ranks = {}, {}
    for ((method, size), models), p in zip(scores.items(), flipped, strict=True):
        left_out = set(unfinished[(unfinished["method"] == method) & (unfinished["size"] == size)]["model"])
        compared[method, size] = compare(models, p, left_out, confidence).assign(objects=objects)
        ranks[method, size] = rank(models, left_out, confidence)
    for path, tables in ((model_comparisons, compared), (model_ranks, ranks)):
        table = pd.concat(tables, names=["method", "size"]).reset_index(["method", "size"])
        write_table(path, table.assign(conditions=conditions))
