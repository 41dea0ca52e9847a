"""Paired comparison of the methods of one model: differences, a ranking, and spread over seeds.

The ranking states the difference of each method from a reference method, with simultaneous
intervals over the ranked methods of a model and size (`rib.statistics.simultaneous`). The reference
is config's `compare_to`, or the pretrained model where that method has no rank. The ranking also
has letters of all pairs: methods that share a letter do not differ clearly, which does not make
them equal. The smallest difference shows how far apart two methods have to be: the median over
pairs of `rib.statistics.simultaneous.smallest_clear_difference`.

Intervals and, from three seeds on, tests come from `rib.statistics.bootstrap`. All methods share
draws of objects, so differences are paired. The standard deviation and t interval over seeds take
objects as fixed.

A merge over seeds has one run per target, so it has no spread over seeds. If other methods have
three or more seeds, it has no test and no rank either: nobody knows how much a merge of other seeds
would differ.

With fewer than three seeds the test flips signs of objects. Its null hypothesis is that two methods
are exchangeable on each object: mRI_A - mRI_B is a sum over objects
(`rib.statistics.ri.ood_parts`), and each term has a random sign, the same for all targets, datasets
and seeds in which the object appears. p is the fraction of draws with at least the observed
absolute difference, counting the observed one (Phipson and Smyth 2010, doi
10.2202/1544-6115.1585).

Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70) is over all tests of a table
with the same model and size: all pairs, including pairs with the pretrained model, and in
comparisons_ri all targets. A method with an underfitted run of a model and size has no test and no
rank there, because they would compare how far training got; its mRI and RI are in mri.csv and
seeds_ri.csv.

Either test is liberal if objects are few and a large gain on rare ones makes up for small losses on
the others: with 40 objects, 3 % of them rare, over a fifth of p are at most 0.05 where the mean
difference is 0. Tables therefore state the number of objects with an image in the RI (for mRI, in
the RI of any target), with a note below FEWEST_OBJECTS.
"""

import itertools
import string
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import erfc

from rib.base.progress import Progress, log
from rib.config.run import PRETRAINED
from rib.statistics.bootstrap import FEWEST_SEEDS, object_weights, over_runs, p_over_runs, spread
from rib.statistics.counts import Counts, read_counts
from rib.statistics.fit import read_table
from rib.statistics.ri import Ood, SourceGroups, ood_accuracies, ood_parts, ri_objects
from rib.statistics.scored_state import ScoredState
from rib.statistics.settings import RIStatistics
from rib.statistics.simultaneous import simultaneous_intervals, smallest_clear_difference

DRAWS = 100_000  # random draws of the objects' signs
MANY_OBJECTS = 1000  # from here on, a sum over contributing objects counts as normal
# Memory for signs. From 2 to 16 MB the time hardly changes; blocks of 64 MB, which the system
# allocates anew each time, take twice as long.
BLOCK_BYTES = 1 << 23
FEWEST_OBJECTS = 100  # with fewer, the test is noted to be liberal
# Percentage points: above the rounding error of a sum, below the effect of one image in millions.
ROUNDING = 1e-9
INTERVAL = ["ci_low", "ci_high"]
SEEDS = ["seeds", "seed_sd", "seed_low", "seed_high"]
REFERENCE = ["reference", "difference", "diff_low", "diff_high"]
RANKS = ["rank_best", "rank_worst", "letters", "pretrained", "smallest_difference"]
COMPARISON = ["difference", *INTERVAL, "p", "p_holm", *SEEDS]
COLUMNS = {
    "comparisons": ["model", "method", "other", "size", *COMPARISON, "objects"],
    "comparisons_ri": ["model", "method", "other", "target", "size", *COMPARISON, "objects"],
    "ranking": ["model", "method", "size", "mri", *INTERVAL, *SEEDS, *REFERENCE, *RANKS, "objects"],
    "seeds_ri": ["model", "method", "target", "size", "ri", *INTERVAL, *SEEDS],
}


@dataclass(frozen=True)
class Column:
    """A number by which methods are compared: RI (mean change of accuracy), or its mean, mRI."""

    family: Hashable  # such as "ri" or "mri": Holm's correction is over all tests of a family
    targets: slice  # which targets of `Effects.values` are averaged: one for RI, all for mRI


@dataclass(frozen=True)
class Effects:
    """Effects of methods on accuracy (RI of each target, and their mean, mRI), compared in pairs.

    If models are compared, their names and numbers (`rib.statistics.model_comparison`) are in place
    of methods and targets.
    """

    names: list[Hashable]  # of methods and, last, the pretrained model, whose RI is 0
    # By target, or None for mRI: {"noto": Column(family="ri", targets=slice(0, 1)), None: ...}.
    columns: dict[Hashable, Column]
    # (names, targets, seeds, 1 + replicates) percentage points, the observed value first
    values: np.ndarray
    # (names, columns, objects) percentage points that each object adds to the column's value, mean
    # over seeds: a test for few seeds flips their signs
    contributions: np.ndarray
    # Names and columns without a test, such as ("ft", "noto"), since a run is underfitted.
    untested: Set[tuple[Hashable, Hashable]] = frozenset()
    # Names and columns with one run for all seeds (a merge over seeds), which `values` repeat.
    with_one_run: Set[tuple[Hashable, Hashable]] = frozenset()

    @property
    def few_seeds(self) -> bool:
        """Whether there are too few seeds for inference over trainings."""
        return self.values.shape[2] < FEWEST_SEEDS

    @property
    def left_out(self) -> Set[tuple[Hashable, Hashable]]:
        """Names and columns without a test and a rank, such as ("ft", "noto").

        These are the untested ones and, if other methods have enough seeds, merges over seeds.
        """
        if self.few_seeds:
            return self.untested
        return self.untested | self.with_one_run

    def values_of(self, name: Hashable, column: Hashable) -> np.ndarray:
        """Values of a method or model in a column: (targets, seeds, 1 + replicates).

        A merge over seeds has one seed.

        Args:
            column: a target, or None for all targets.
        """
        targets = self.columns[column].targets
        values = self.values[self.names.index(name), targets]
        if (name, column) in self.with_one_run:
            return values[:, :1]  # other seeds repeat the one run
        return values

    def differences(self, name: Hashable, other_name: Hashable, column: Hashable) -> np.ndarray:
        """Values of one method or model minus another's: (targets, seeds, 1 + replicates).

        If only one of the two has a run for each seed, its mean over seeds is compared.

        Args:
            column: a target, or None for all targets.
        """
        values = self.values_of(name, column)
        other_values = self.values_of(other_name, column)
        if values.shape != other_values.shape:  # one is a merge over seeds
            values = values.mean(axis=1, keepdims=True)
            other_values = other_values.mean(axis=1, keepdims=True)
        return values - other_values


def effects_of(
    ood: Mapping[ScoredState, Ood],
    contributions: Mapping[ScoredState, np.ndarray],
    size: str,
    underfitted: Collection[Hashable] = (),
) -> Effects:
    """Effects of the methods of one model, from its runs with the same training subset.

    Args:
        ood: accuracies before and after fine-tuning, by run.
        contributions: by run, (objects,) percentage points that each object adds to its RI.
        size: training subset, such as `all`; runs with another one are left out.
        underfitted: methods that are not tested, such as {"lora"}.
    """
    states = [state for state in ood if state.run.size == size]
    names = sorted({state.run.method for state in states})
    targets = sorted({state.run.target for state in states})
    seeds = sorted({state.run.seed for state in states})
    state_of_run = {(state.run.method, state.run.target, state.run.seed): state for state in states}
    # A merge over seeds has one run, of one seed, which stands for all seeds: {"soup": 0}.
    single_seed = _single_seeds(states)

    def array_of_runs(arrays: Mapping[ScoredState, np.ndarray]) -> np.ndarray:
        """Stacks arrays (k,) of runs: (methods and the pretrained model, targets, seeds, k)."""
        array_of_each_run = []
        for name in names:
            for target in targets:
                for seed in seeds:
                    seed_of_run = single_seed.get(name, seed)
                    state = state_of_run[name, target, seed_of_run]
                    array_of_each_run.append(arrays[state])
        of_names = np.array(array_of_each_run).reshape(len(names), len(targets), len(seeds), -1)
        # Effects are changes from the pretrained model.
        of_pretrained = np.zeros_like(of_names[:1])
        return np.concatenate([of_names, of_pretrained])

    ri_of_states = {state: accuracies.change for state, accuracies in ood.items()}
    contributions_by_target = array_of_runs(contributions).mean(axis=2)  # over seeds
    mean_contributions = contributions_by_target.mean(axis=1, keepdims=True)
    columns: dict[Hashable, Column] = {}
    for number, target in enumerate(targets):
        columns[target] = Column(family="ri", targets=slice(number, number + 1))
    columns[None] = Column(family="mri", targets=slice(None))
    return Effects(
        names=[*names, PRETRAINED],
        columns=columns,
        values=array_of_runs(ri_of_states),
        contributions=np.concatenate([contributions_by_target, mean_contributions], axis=1),
        untested=set(itertools.product(underfitted, columns)),
        with_one_run=set(itertools.product(single_seed, columns)),
    )


def _single_seeds(states: Sequence[ScoredState]) -> dict[str, int]:
    """{"soup": 0}: the seed of methods with fewer seeds than others, such as merges over seeds."""
    seeds_of_method: dict[str, set[int]] = {}
    for state in states:
        seeds_of_method.setdefault(state.run.method, set()).add(state.run.seed)
    all_seeds = {state.run.seed for state in states}
    return {
        method: min(seeds)
        for method, seeds in seeds_of_method.items()
        if len(seeds) < len(all_seeds)
    }


def sign_flip_p(
    contributions: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """Two-sided p of differences between methods: the test for fewer than three seeds.

    If two methods are exchangeable, each object's contribution to their difference has a random
    sign.

    A pair's sum over objects with contributions x counts as normal if at least 1000 objects
    contribute, counted as (sum x^2)^2 / sum x^4. Its variance is sum x^2, with a continuity
    correction by the largest x, exact for equal x. Other pairs have random signs.

    Args:
        contributions: (methods, columns, objects) percentage points.
        pairs: indices of two methods each.
        draws: number of sign draws, shared by all pairs and columns.

    Returns:
        (pairs, columns), 0 to 1; p of drawn pairs is at least 1 / (1 + draws).
    """
    columns = contributions.shape[1]
    p = np.ones((len(pairs), columns))
    pairs_to_draw = []  # indices into pairs
    for number, (first, second) in enumerate(pairs):
        differences = contributions[first] - contributions[second]
        if _has_many_objects(differences):
            p[number] = _normal_p(differences)
        else:
            pairs_to_draw.append(number)
    if pairs_to_draw:
        drawn_pairs = [pairs[number] for number in pairs_to_draw]
        p[pairs_to_draw] = _drawn_p(contributions, drawn_pairs, draws, seed)
    return p


def _has_many_objects(differences: np.ndarray) -> bool:
    """Whether a sum with random signs counts as normal, in all columns of (columns, objects)."""
    squares = (differences**2).sum(axis=1)
    fourth_powers = (differences**4).sum(axis=1)
    # The effective number of objects, squares^2 / fourth_powers, may be 0 / 0; hence the product.
    is_below = squares**2 < MANY_OBJECTS * fourth_powers
    return not is_below.any()


def _normal_p(differences: np.ndarray) -> np.ndarray:
    """p (columns,) of sums over objects, (columns, objects), whose random signs count as normal."""
    variance = (differences**2).sum(axis=1)
    variance = variance.clip(np.finfo(float).tiny)  # avoids dividing by 0
    largest = np.abs(differences).max(axis=1)
    corrected_sum = (np.abs(differences.sum(axis=1)) - largest).clip(0)
    return erfc(corrected_sum / np.sqrt(2 * variance))


def _drawn_p(
    contributions: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """p (pairs, columns): share of draws of signs with at least the observed difference."""
    columns = contributions.shape[1]
    # Methods in no pair are left out; (pairs,) new indices of the first and second method.
    used_methods, new_numbers = np.unique(pairs, return_inverse=True)
    first, second = new_numbers.reshape(-1, 2).T
    # One product with this matrix sums over objects for all methods and columns.
    by_method_and_column = contributions[used_methods].reshape(-1, contributions.shape[2])
    contributes = by_method_and_column.any(axis=0)  # the sign of a zero doesn't matter
    # An object on which no pair differs changes no difference, whatever its sign.
    differs = _differs_in_a_pair(contributions, pairs)[contributes]
    by_object = by_method_and_column[:, contributes][:, differs].T
    by_object = np.ascontiguousarray(by_object)  # (objects that differ, methods x columns)

    def absolute_differences(sums: np.ndarray) -> np.ndarray:
        """Differences (draws, pairs, columns) from sums over objects (draws, methods x columns)."""
        by_method = sums.reshape(-1, len(used_methods), columns)
        return np.abs(by_method[:, first] - by_method[:, second])

    observed = absolute_differences(by_object.sum(axis=0)[None])
    bytes_of_draw = 8 * (len(differs) + 2 * observed.size)
    draws_at_once = max(1, BLOCK_BYTES // bytes_of_draw)
    at_least_observed = np.zeros(observed.shape[1:], np.int64)  # number of draws
    for drawn_sums in _sums_with_random_signs(by_object, differs, draws, draws_at_once, seed):
        drawn = absolute_differences(drawn_sums)
        at_least_observed += (drawn >= observed - ROUNDING).sum(axis=0)
    return (1 + at_least_observed) / (1 + draws)


def _sums_with_random_signs(
    by_object: np.ndarray, differs: np.ndarray, draws: int, draws_at_once: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields sums over objects with random signs, (draws of the block, methods x columns)."""
    objects = len(differs)
    observed_sums = by_object.sum(axis=0)
    rng = np.random.default_rng(seed)
    is_positive = np.empty((draws_at_once, len(by_object)))  # 1.0 or 0.0
    for start in Progress(range(0, draws, draws_at_once), desc="flipping signs", unit="block"):
        draws_of_block = min(draws_at_once, draws - start)
        # Signs are drawn for all objects and used for those that differ, (objects,) bool.
        bits = _random_bits(draws_of_block, objects, rng)
        is_positive_in_block = is_positive[:draws_of_block]
        is_positive_in_block[...] = bits[:, differs]
        positive_sums = is_positive_in_block @ by_object
        # Each sign is 2 x bit - 1, so a sum with signs is twice the positive part minus the whole
        # sum.
        yield 2 * positive_sums - observed_sums


def _differs_in_a_pair(contributions: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """(objects,) bool: whether the two methods of any pair differ on an object."""
    differs = np.zeros(contributions.shape[2], bool)
    for first, second in pairs:
        differs |= (contributions[first] != contributions[second]).any(axis=0)
    return differs


def _random_bits(draws: int, objects: int, rng: np.random.Generator) -> np.ndarray:
    """Random 0 or 1, (draws, objects) uint8, eight from each random byte."""
    words_of_draw = objects // 64 + 1  # of 64 bits
    random_bytes = np.frombuffer(rng.bytes(8 * words_of_draw * draws), np.uint8)
    return np.unpackbits(random_bytes.reshape(draws, -1), axis=1, count=objects)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm-adjusted p (tests,), which controls the family-wise error rate.

    The smallest of n p is multiplied by n, the next by n - 1 and so on; none falls below the one
    before or exceeds 1. 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06.
    """
    ascending = np.argsort(p, kind="stable")
    remaining_tests = np.arange(len(p), 0, -1)
    multiplied = remaining_tests * p[ascending]
    adjusted = np.empty(len(p))
    adjusted[ascending] = np.minimum(1, np.maximum.accumulate(multiplied))
    return adjusted


def letters(alike: np.ndarray) -> list[str]:
    """Compact letter display: two methods share a letter if and only if they don't differ clearly.

    A method may have several letters: `ab` differs clearly neither from `a` nor from `b`, which
    differ clearly from each other.

    Args:
        alike: (methods, methods) bool, symmetric, whether two don't differ clearly.

    Returns:
        One text per method. The first methods have the first letters; after `z` come `a1`, `b1` and
        so on.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert-and-absorb algorithm.
    """
    # Methods of a group will share a letter. At first, all methods are in one group.
    groups = {frozenset(range(len(alike)))}
    for first, second in itertools.combinations(range(len(alike)), 2):
        if not alike[first, second]:
            groups = _separate(groups, first, second)
    letters_of_method = ["" for _ in alike]
    for number, group in enumerate(sorted(groups, key=sorted)):
        letter = string.ascii_lowercase[number % 26]
        if number >= 26:
            letter += str(number // 26)
        for method in group:
            letters_of_method[method] += letter
    return letters_of_method


def _separate(groups: Set[frozenset[int]], first: int, second: int) -> set[frozenset[int]]:
    """Groups where two methods are never together: 0 and 1 of {0, 1, 2} give {1, 2} and {0, 2}."""
    split_groups = set()
    for group in groups:
        if first in group and second in group:
            split_groups |= {group - {first}, group - {second}}
        else:
            split_groups.add(group)
    # A group inside a larger group would give its methods a letter that adds nothing.
    return {
        group
        for group in split_groups
        if not any(group < larger_group for larger_group in split_groups)
    }


def compare(effects: Effects, confidence: float, draws: int, seed: int) -> pd.DataFrame:
    """Compare all pairs of methods (or models) by each column: RI of each target, and mRI.

    Returns:
        family (of tests), method, other, target (the column), difference (percentage points, method
        minus other) with its confidence interval, p and Holm-adjusted p (NaN if not tested), and
        the spread of the difference over seeds: seeds, seed_sd, seed_low, seed_high.
    """
    pairs = list(itertools.combinations(range(len(effects.names)), 2))
    drawn_p = np.empty((0, 0))  # (pairs, columns)
    if effects.few_seeds:
        drawn_p = sign_flip_p(effects.contributions, pairs, draws, seed)
    left_out = effects.left_out
    lines = []
    for column_number, (column, column_facts) in enumerate(effects.columns.items()):
        for pair_number, (first, second) in enumerate(pairs):
            name = effects.names[first]
            other_name = effects.names[second]
            differences = effects.differences(name, other_name, column)
            if (name, column) in left_out or (other_name, column) in left_out:
                p = np.nan
            elif effects.few_seeds:
                p = drawn_p[pair_number, column_number]
            else:
                p = p_over_runs(differences)
            p_holm = np.nan  # filled in below
            difference_and_interval = over_runs(differences, confidence)
            mean_of_seeds = differences[..., 0].mean(axis=0)
            over_seeds = spread(mean_of_seeds, confidence)
            names = (column_facts.family, name, other_name, column)
            lines.append((*names, *difference_and_interval, p, p_holm, *over_seeds))
    table = pd.DataFrame(lines, columns=["family", "method", "other", "target", *COMPARISON])
    tested = table.dropna(subset=["p"])
    p_of_families = tested.groupby("family")["p"]
    table["p_holm"] = p_of_families.transform(lambda p: holm(p.to_numpy()))
    return table


def rank(comparisons: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Methods by mRI, best first, from comparisons of all pairs.

    Two methods differ clearly if their Holm-adjusted p is at most 1 - confidence.

    Args:
        comparisons: one row per pair, columns as `compare` gives them. Pairs are in the order of
            `itertools.combinations` over the methods and, last, the pretrained model.

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
    effects: Effects,
    methods: Sequence[Hashable],
    compare_to: Hashable,
    confidence: float,
    seed: int,
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
        mri_of = _mri_values(effects)
        differences = np.array([mri_of[name] - mri_of[reference] for name in compared_methods])
        difference, low, high = simultaneous_intervals(differences, confidence, seed)
        table.loc[compared_methods, "difference"] = difference
        table.loc[compared_methods, "diff_low"] = low
        table.loc[compared_methods, "diff_high"] = high
    return table.reset_index()


def smallest_difference(
    effects: Effects, methods: Sequence[Hashable], tests: int, confidence: float
) -> float:
    """Smallest difference of mRI that a test would find, in percentage points: median over pairs.

    Pairs of methods that are right on the same images in all runs are left out: without variation
    they can't show which differences would be clear. NaN if no pair is left.

    Args:
        tests: number of tests that Holm's correction is over.
    """
    values = _mri_values(effects)
    differences_of_pairs = [
        smallest_clear_difference(values[first] - values[second], tests, confidence)
        for first, second in itertools.combinations(methods, 2)
    ]
    # 0 is for a pair without variation.
    known_differences = [difference for difference in differences_of_pairs if difference > 0]
    if not known_differences:
        return np.nan
    return float(np.median(known_differences))


def _mri_values(effects: Effects) -> dict[Hashable, np.ndarray]:
    """RI by name, whose mean is mRI: (targets, seeds, 1 + replicates), the observed value first."""
    targets = effects.columns[None].targets
    return dict(zip(effects.names, effects.values[:, targets], strict=True))


def tables_of(
    effects: Effects, confidence: float, draws: int, seed: int, compare_to: Hashable
) -> dict[str, pd.DataFrame]:
    """The tables of one model and size, by name, without the columns model and size.

    Returns:
        seeds_ri (RI of each method and target), comparisons (pairs by mRI), comparisons_ri (pairs
        by RI of each target) and ranking; some may be empty.
    """
    comparisons = compare(effects, confidence, draws, seed)
    # RI is the difference from the pretrained model, tested or not.
    from_pretrained = comparisons[comparisons["other"] == PRETRAINED]
    methods_ri = from_pretrained.rename(columns={"difference": "ri"})
    methods_ri = methods_ri.sort_values("method", kind="stable")
    tested = comparisons.dropna(subset=["p"])
    is_of_mri = tested["target"].isna()
    tested_mri = tested[is_of_mri]
    ranking = rank(tested_mri, confidence)
    ranked_methods = ranking["method"].tolist()
    differences = differences_from(effects, ranked_methods, compare_to, confidence, seed)
    for column in REFERENCE:
        ranking[column] = differences[column].to_numpy()
    ranking["smallest_difference"] = smallest_difference(
        effects, ranked_methods, len(tested_mri), confidence
    )
    return {
        "seeds_ri": methods_ri.dropna(subset=["target"]),
        "comparisons": tested_mri,
        "comparisons_ri": tested.dropna(subset=["target"]),
        "ranking": ranking,
    }


def few_objects(table: pd.DataFrame) -> str:
    """Note that a table's tests are liberal, since a row has few objects; empty if none has.

    Args:
        table: a table with the column objects (their number); others get no note.
    """
    if "objects" not in table or table.empty:
        return ""
    fewest = table["objects"].min()
    if np.isnan(fewest) or fewest >= FEWEST_OBJECTS:
        return ""
    return (
        f"fewer than {FEWEST_OBJECTS} objects ({fewest:.0f}): the test finds differences too often"
    )


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
    runs = read_table(fit)
    underfitted = runs[runs["underfitted"] == "yes"]
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
    counts: Counts, underfitted: pd.DataFrame, ri: RIStatistics, compare_to: str, draws: int
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
        is_of_size = (underfitted["model"] == model) & (underfitted["size"] == size)
        underfitted_methods = set(underfitted.loc[is_of_size, "method"])
        effects = effects_of(ood, contributions, size, underfitted_methods)
        tables = tables_of(effects, ri.confidence, draws, ri.seed, compare_to)
        tables = _with_objects(tables, counts, effects, ood_datasets, source_groups)
        tables_of_sizes.append(
            {name: table.assign(model=model, size=size) for name, table in tables.items()}
        )
    return tables_of_sizes


def _with_objects(
    tables: Mapping[str, pd.DataFrame],
    counts: Counts,
    effects: Effects,
    ood_datasets: Collection[str],
    source_groups: SourceGroups,
) -> dict[str, pd.DataFrame]:
    """Adds the column objects: how many have an image in the RI of the target (for mRI: any).

    With few objects, tests are liberal.
    """
    targets = [column for column in effects.columns if isinstance(column, str)]  # None is mRI
    objects_of_target = ri_objects(counts, targets, ood_datasets, source_groups)
    objects_of_any = objects_of_target[None]
    tables_with_objects = {}
    for name, table in tables.items():
        if "target" in table:
            objects = [objects_of_target.get(target, objects_of_any) for target in table["target"]]
        else:
            objects = [objects_of_any] * len(table)
        tables_with_objects[name] = table.assign(objects=objects)
    return tables_with_objects
