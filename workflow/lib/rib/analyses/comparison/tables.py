"""Paired comparison of the methods of one model: differences, a ranking, and spread over seeds.

Differences, intervals and p of all pairs of methods are contrasts (`rib.statistics.contrast`); the
pretrained model, whose RI is 0, is one of the units. Holm's correction is over all tests of a table
with the same model and size: all pairs by mRI, and in comparisons_ri all pairs and targets.

The ranking states the difference of each method from a reference method, with simultaneous
intervals over the ranked methods of a model and size (`rib.analyses.comparison.simultaneous`). The
reference is config's `compare_to`, or the pretrained model where that method has no rank. The
ranking also has letters of all pairs: methods that share a letter do not differ clearly, which does
not make them equal. The smallest difference shows how far apart two methods have to be: the median
over pairs of `rib.analyses.comparison.simultaneous.smallest_clear_difference`.

A method without tests has no rank: one with an underfitted run of a model and size, or a merge over
seeds if other methods have three or more seeds. Its mRI and RI are in mri.csv and seeds_ri.csv.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rib.analyses.comparison.simultaneous import simultaneous_intervals, smallest_clear_difference
from rib.base.params import from_params
from rib.base.progress import log
from rib.schema.run import PRETRAINED
from rib.statistics.bootstrap import object_weights
from rib.statistics.contrast import (
    COMPARISON,
    INTERVAL,
    SEEDS,
    Measure,
    Measured,
    all_pairs,
    contrasts,
    over_targets_and_seeds,
    paired_p,
)
from rib.statistics.counts import Counts, read_counts
from rib.statistics.fit import underfitted_methods
from rib.statistics.inputs import Inputs
from rib.statistics.ri import Ood, ood_accuracies, ood_parts, ri_objects
from rib.statistics.scored_state import ScoredState
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tests import DRAWS, few_objects, letters

# Families of tests.
MRI = "mri"  # of one measure, mRI
RI = "ri"  # of a measure for each target, with its name
REFERENCE = ["reference", "difference", "diff_low", "diff_high"]
RANKS = ["rank_best", "rank_worst", "letters", "pretrained", "smallest_difference"]
COLUMNS = {
    "comparisons": ["model", "method", "other", "size", *COMPARISON, "objects"],
    "comparisons_ri": ["model", "method", "other", "target", "size", *COMPARISON, "objects"],
    "ranking": ["model", "method", "size", "mri", *INTERVAL, *SEEDS, *REFERENCE, *RANKS, "objects"],
    "seeds_ri": ["model", "method", "target", "size", "ri", *INTERVAL, *SEEDS],
}


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: comparisons (pairs by mRI), comparisons_ri, ranking, seeds_ri."""
    return comparison_tables(
        inputs.path("counts"),
        inputs.path("fit"),
        ri=from_params(RIStatistics, inputs.params["ri"]),
        compare_to=inputs.params["compare_to"],
    )


def measures_of_methods(
    ood: Mapping[ScoredState, Ood],
    contributions: Mapping[ScoredState, np.ndarray],
    size: str,
    underfitted: Collection[tuple[str, str, str]],
) -> list[Measure]:
    """RI of each target and, last, mRI; units are the methods of one model and the model itself.

    Args:
        ood: accuracies before and after fine-tuning, by run.
        contributions: by run, (objects,) percentage points that each object adds to its RI.
        size: training subset, such as `all`; runs with another one are left out.
        underfitted: model, method and size of underfitted runs, such as {("net", "ft", "all")};
            these methods are not tested.
    """
    states = [state for state in ood if state.run.size == size]
    model = states[0].run.model
    targets = sorted({state.run.target for state in states})
    ri_values = over_targets_and_seeds({state: ood[state].change for state in states})
    parts = over_targets_and_seeds({state: contributions[state] for state in states})
    # By method, (targets, seeds, 1 + replicates) and (targets, objects).
    values = {method: of_method for (method, _), of_method in ri_values.items()}
    parts_of_targets = {method: of_method.mean(axis=1) for (method, _), of_method in parts.items()}
    # Effects are changes from the pretrained model. It has all seeds, unlike a merge over seeds.
    values[PRETRAINED] = np.zeros_like(max(values.values(), key=np.size))
    parts_of_targets[PRETRAINED] = np.zeros_like(next(iter(parts_of_targets.values())))

    is_fitted = {unit: (model, unit, size) not in underfitted for unit in values}
    measures = []
    for number, target in enumerate(targets):
        ri_of_units = {}
        for unit, of_targets in values.items():
            ri_of_units[unit] = Measured(
                values=of_targets[number : number + 1],
                contributions=parts_of_targets[unit][number],
                is_fitted=is_fitted[unit],
            )
        measures.append(Measure(name=target, family=RI, units=ri_of_units))
    mri_of_units = {}
    for unit, of_targets in values.items():
        mri_of_units[unit] = Measured(
            values=of_targets,
            contributions=parts_of_targets[unit].mean(axis=0),
            is_fitted=is_fitted[unit],
        )
    return [*measures, Measure(name=MRI, family=MRI, units=mri_of_units)]


def rank(comparisons: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Methods by mRI, best first, from comparisons of all pairs.

    Two methods differ clearly if their Holm-adjusted p is at most 1 - confidence.

    Args:
        comparisons: one row per pair with the columns `COMPARISON`, method and other. Pairs are in
            the order of `all_pairs` over the methods and, last, the pretrained model.

    Returns:
        method, mri with its confidence interval and spread over seeds; rank_best (1 + number of
        better methods) and rank_worst (number of methods minus number of worse methods); letters
        (shared by methods that don't differ clearly); pretrained (better, worse or inconclusive,
        compared with the pretrained model).
    """
    from_pretrained = comparisons[comparisons["other"] == PRETRAINED]
    methods = from_pretrained.rename(columns={"difference": "mri"})
    differs_clearly = comparisons["p_holm"] <= 1 - confidence
    # Methods and, last, the pretrained model: 1 where the row is better than the column, -1 where
    # it is worse, 0 where the difference is inconclusive.
    verdicts = np.zeros((len(methods) + 1, len(methods) + 1), int)
    above_diagonal = np.triu_indices(len(verdicts), 1)  # in the order of the pairs
    verdicts[above_diagonal] = np.sign(comparisons["difference"]) * differs_clearly
    verdicts -= verdicts.T  # below the diagonal, the opposite
    best_first = np.argsort(-methods["mri"].to_numpy(), kind="stable")
    among_methods = verdicts[np.ix_(best_first, best_first)]
    is_better = among_methods > 0
    is_worse = among_methods < 0
    words = {1: "better", 0: "inconclusive", -1: "worse"}
    ranked = methods.iloc[best_first][["method", "mri", *INTERVAL, *SEEDS]]
    return ranked.assign(
        rank_best=1 + is_worse.sum(axis=1),
        rank_worst=len(best_first) - is_better.sum(axis=1),
        letters=letters(among_methods == 0),
        pretrained=[words[verdict] for verdict in verdicts[best_first, -1]],
    )


def differences_from(
    mri: Measure, methods: Sequence[str], compare_to: str, confidence: float, seed: int
) -> pd.DataFrame:
    """Differences of mRI from a reference, with simultaneous intervals over the methods.

    Args:
        compare_to: the reference; the pretrained model replaces a method without a rank.
        seed: of the draws of trainings.

    Returns:
        method, reference, difference, diff_low, diff_high (percentage points). The reference itself
        has difference 0 and no interval.
    """
    reference = compare_to if compare_to in methods else PRETRAINED
    table = pd.DataFrame({"method": methods, "reference": reference, "difference": 0.0})
    table = table.assign(diff_low=np.nan, diff_high=np.nan).set_index("method")
    compared_methods = [name for name in methods if name != reference]
    if compared_methods:
        differences = [mri.difference(name, reference) for name in compared_methods]
        difference, low, high = simultaneous_intervals(differences, confidence, seed)
        table.loc[compared_methods, "difference"] = difference
        table.loc[compared_methods, "diff_low"] = low
        table.loc[compared_methods, "diff_high"] = high
    return table.reset_index()


def smallest_difference(
    mri: Measure, methods: Sequence[str], tests: int, confidence: float
) -> float:
    """Smallest difference of mRI that a test would find, in percentage points: median over pairs.

    Pairs of methods that are right on the same images in all runs are left out: without variation
    they can't show which differences would be clear. NaN if no pair is left.

    Args:
        tests: number of tests that Holm's correction is over.
    """
    differences_of_pairs = [
        smallest_clear_difference(mri.difference(first, second), tests, confidence)
        for first, second in itertools.combinations(methods, 2)
    ]
    # 0 is for a pair without variation.
    known_differences = [difference for difference in differences_of_pairs if difference > 0]
    if not known_differences:
        return np.nan
    return float(np.median(known_differences))


def tables_of(
    measures: Sequence[Measure], confidence: float, draws: int, seed: int, compare_to: str
) -> dict[str, pd.DataFrame]:
    """The tables of one model and size, by name, without the columns model, size and objects.

    Args:
        measures: RI of each target and mRI, as `measures_of_methods` gives them.

    Returns:
        seeds_ri (RI of each method and target), comparisons (pairs by mRI), comparisons_ri (pairs
        by RI of each target) and ranking; some may be empty.
    """
    *_, mri = measures
    pairs = all_pairs(mri.units)
    p = paired_p(measures, pairs, draws, seed)
    differences = contrasts(measures, pairs, p, confidence)
    differences = differences.rename(columns={"unit": "method", "other_unit": "other"})
    of_mri = differences[differences["family"] == MRI]
    of_targets = differences[differences["family"] == RI].rename(columns={"measure": "target"})

    # RI is the difference from the pretrained model, tested or not.
    from_pretrained = of_targets[of_targets["other"] == PRETRAINED]
    seeds_ri = from_pretrained.rename(columns={"difference": "ri"})
    tested_mri = of_mri.dropna(subset=["p"])
    ranking = rank(tested_mri, confidence)
    ranked_methods = ranking["method"].tolist()
    from_reference = differences_from(mri, ranked_methods, compare_to, confidence, seed)
    for column in REFERENCE:
        ranking[column] = from_reference[column].to_numpy()
    ranking["smallest_difference"] = smallest_difference(
        mri, ranked_methods, len(tested_mri), confidence
    )
    return {
        "seeds_ri": seeds_ri.sort_values("method", kind="stable"),
        "comparisons": tested_mri,
        "comparisons_ri": of_targets.dropna(subset=["p"]),
        "ranking": ranking,
    }


def comparison_tables(
    counts: Path, fit: Path, *, ri: RIStatistics, compare_to: str, draws: int = DRAWS
) -> dict[str, pd.DataFrame]:
    """Tables that compare the methods of each model and size of a grid, without curves.

    Args:
        counts: file of right answers, .npz (`rib.statistics.counts.write_counts`).
        fit: CSV file with the columns model, method, size, underfitted (yes or no).
        compare_to: reference method of the ranking, or the pretrained model.
        draws: number of random sign flips, used with fewer than three seeds and few objects.

    Returns:
        comparisons (pairs of methods by mRI), comparisons_ri (pairs by RI of each target), ranking,
        and seeds_ri (RI of each method and target), with the columns `COLUMNS`.
    """
    underfitted = underfitted_methods(fit)
    tables_of_models_and_sizes = []
    for counts_of_model in read_counts(counts):
        plain = counts_of_model.without_curves()
        tables_of_models_and_sizes += _tables_of_model(plain, underfitted, ri, compare_to, draws)
    tables_of_grid = {}
    for name, columns in COLUMNS.items():
        tables_with_rows = [
            tables[name][columns] for tables in tables_of_models_and_sizes if len(tables[name])
        ]
        if tables_with_rows:
            tables_of_grid[name] = pd.concat(tables_with_rows)
        else:
            tables_of_grid[name] = pd.DataFrame(columns=columns)
        note = few_objects(tables_of_grid[name])
        if name.startswith("comparisons") and note:
            log.warning("%s: %s", name, note)
    return tables_of_grid


def _tables_of_model(
    counts: Counts,
    underfitted: Collection[tuple[str, str, str]],
    ri: RIStatistics,
    compare_to: str,
    draws: int,
) -> list[dict[str, pd.DataFrame]]:
    """[{"ranking": ..., "comparisons": ...}]: tables by name, one mapping per training subset."""
    ood_datasets = ri.ood_datasets
    source_groups = ri.source_groups
    weights = object_weights(counts.objects, ri.replicates, ri.seed)
    ood = ood_accuracies(counts, weights, ood_datasets, source_groups)
    contributions = {}  # (objects,) percentage points that each object adds to RI
    for state, before_and_after in ood_parts(counts, ood_datasets, source_groups).items():
        before, after = before_and_after
        contributions[state] = after - before
    model = counts.states[0].run.model
    tables_of_sizes = []
    for size in sorted({state.run.size for state in ood}):
        measures = measures_of_methods(ood, contributions, size, underfitted)
        targets = [measure.name for measure in measures if measure.family == RI]
        objects_of_target = ri_objects(counts, targets, ood_datasets, source_groups)
        tables = tables_of(measures, ri.confidence, draws, ri.seed, compare_to)
        tables_of_sizes.append(
            {
                name: _with_objects(table, objects_of_target).assign(model=model, size=size)
                for name, table in tables.items()
            }
        )
    return tables_of_sizes


def _with_objects(table: pd.DataFrame, objects_of_target: Mapping[str | None, int]) -> pd.DataFrame:
    """Adds the column objects: how many have an image in the RI of the target (for mRI: any).

    With few objects, tests are liberal.
    """
    if "target" in table:
        return table.assign(objects=table["target"].map(objects_of_target))
    return table.assign(objects=objects_of_target[None])
