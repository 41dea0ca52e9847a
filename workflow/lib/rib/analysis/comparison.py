"""Paired comparison of the methods of one model: differences of mRI, a ranking, and the spread over seeds.

The ranking has first the difference of each method from a reference method, with simultaneous
intervals over the ranked methods of a model and size (`rib.analysis.simultaneous`). The reference
is config's `compare_to` or, where that has no rank for a model and size, the pretrained model. Second
it has letters of all pairs: methods that share one are not told apart, which does not make them
equal. How far apart two methods have to be is told by the smallest difference, the median over pairs
of `rib.analysis.simultaneous.smallest_told`.

Confidence intervals and, from three seeds on, tests are those of `rib.analysis.bootstrap`. All methods share draws of
objects, so differences are paired. The standard deviation and t-interval over seeds are those with fixed objects.

A merge over seeds has one run for each target, without a spread over seeds. Beside means over three or more seeds it has no
test and no rank either: how much another merge, of other seeds, would differ is not known.

With fewer than three seeds the test flips signs of objects. Its null hypothesis is that two methods are exchangeable on
each object: mRI_A - mRI_B is a sum over objects (`rib.analysis.ri.ood_parts`), and the sign of each term is random,
jointly for all targets, datasets and seeds in which the object appears. p is the fraction of draws with at least the
observed absolute difference, counting the observed one (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).

Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70) is over all tests of a table with the same model and
size: all pairs, including those with the pretrained model, and in comparisons_ri all targets. A method with an unfinished
run (`rib.analysis.fit`) of a model and size has no test and no rank there, since that would compare how far training
got; its mRI and RI are in mri.csv and seeds_ri.csv.

Either test is liberal if objects are few and a large gain on rare ones makes up for small losses on the others: with 40
objects, 3 % of them rare, over a fifth of p are at most 0.05 where the mean difference is 0. Tables therefore have the
number of objects with an image in the RI (for mRI, in the RI of any target), and a note if it is below FEWEST_OBJECTS.
"""

import itertools
import string
from collections.abc import Collection, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import erfc

from rib.analysis.bootstrap import FEWEST_SEEDS, object_weights, over_runs, p_over_runs, spread
from rib.analysis.counts import State, read_counts
from rib.analysis.fit import read_table
from rib.analysis.ri import Ood, ood_accuracies, ood_parts, ri_objects
from rib.analysis.simultaneous import simultaneous_intervals, smallest_told
from rib.base.progress import Progress, log
from rib.config.run import PRETRAINED

DRAWS = 100_000  # of signs
MANY = 1000  # objects that contribute, from which on the sum's distribution counts as normal
CHUNK = 1 << 26  # bytes of signs at a time
FEWEST_OBJECTS = 100  # with fewer, the test is noted to be liberal
# Percentage points: more than the rounding error of a sum, less than the effect of one image in millions.
ROUNDING = 1e-9
IMAGES = ["ci_low", "ci_high"]
SEEDS = ["seeds", "seed_sd", "seed_low", "seed_high"]
REFERENCE = ["reference", "difference", "diff_low", "diff_high"]
RANKS = ["rank_best", "rank_worst", "letters", "pretrained", "smallest_difference"]
COMPARISON = ["difference", *IMAGES, "p", "p_holm", *SEEDS]
COLUMNS = {
    "comparisons": ["model", "method", "other", "size", *COMPARISON, "objects"],
    "comparisons_ri": ["model", "method", "other", "target", "size", *COMPARISON, "objects"],
    "ranking": ["model", "method", "size", "mri", *IMAGES, *SEEDS, *REFERENCE, *RANKS, "objects"],
    "seeds_ri": ["model", "method", "target", "size", "ri", *IMAGES, *SEEDS],
}


@dataclass(frozen=True)
class Effects:
    """Values that are compared in pairs: of methods, RI of each target and, last, their mean, mRI."""

    names: list[str]  # methods, of which the last is the pretrained model, whose RI is 0; or models
    # by name (target, or None for mRI), the tests that Holm's correction is over, and the places averaged in `values`
    columns: dict[Hashable, tuple[Hashable, slice]]
    # (names, places, seeds, 1 + replicates) percentage points, observed and of each bootstrap replicate
    values: np.ndarray
    parts: (
        np.ndarray
    )  # (names, columns, objects) contribution of each object to the mean over seeds
    untested: Set[tuple[str, Hashable]] = (
        frozenset()
    )  # names and columns that are left out of comparisons
    # names and columns with one run for all seeds, a merge over seeds; `values` repeat it for each seed
    once: Set[tuple[str, Hashable]] = frozenset()

    @property
    def few_seeds(self) -> bool:
        """Whether results are for the trained networks alone."""
        return self.values.shape[2] < FEWEST_SEEDS

    @property
    def left_out(self) -> Set[tuple[str, Hashable]]:
        """Names and columns without a test and a rank: `untested` and, beside means over enough seeds, `once`."""
        return self.untested if self.few_seeds else self.untested | self.once

    def of(self, place: int, column: Hashable) -> np.ndarray:
        """Values of the name at a place in a column: (places, seeds, 1 + replicates), of one run for all seeds one."""
        found = self.values[place, self.columns[column][1]]
        return found[:, :1] if (self.names[place], column) in self.once else found


def effects_of(
    ood: Mapping[State, Ood],
    parts: Mapping[State, np.ndarray],
    size: str,
    unfinished: Collection[str] = (),
) -> Effects:
    """Collect the effects of one model's runs with the same training subset; unfinished methods are not tested."""
    states = [state for state in ood if state[3] == size]
    methods, targets, seeds = (sorted({state[field] for state in states}) for field in (1, 2, 4))
    model, own = (
        states[0][0],
        {method: {state[4] for state in states if state[1] == method} for method in methods},
    )
    once = {method: min(found) for method, found in own.items() if len(found) < len(seeds)}

    def table(value: Mapping[State, np.ndarray]) -> np.ndarray:
        """Array (methods and pretrained, targets, seeds, ...)."""
        runs = [[[(m, t, size, once.get(m, s)) for s in seeds] for t in targets] for m in methods]
        found = np.array(
            [
                [[value[model, *run, None] for run in part] for part in of_method]
                for of_method in runs
            ]
        )
        return np.concatenate([found, np.zeros_like(found[:1])])

    by_target = table(parts).mean(axis=2)
    of_targets = {target: ("ri", slice(place, place + 1)) for place, target in enumerate(targets)}
    return Effects(
        names=[*methods, PRETRAINED],
        columns={**of_targets, None: ("mri", slice(None))},
        values=table({state: pair.change for state, pair in ood.items()}),
        parts=np.concatenate([by_target, by_target.mean(axis=1, keepdims=True)], axis=1),
        untested=set(itertools.product(unfinished, [*targets, None])),
        once=set(itertools.product(once, [*targets, None])),
    )


def sign_flip_p(
    parts: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """Two-sided p of differences between methods, when the signs of the objects' contributions are random.

    From 1000 objects on that contribute x, counted as (sum x^2)^2 / sum x^4, a pair's sum counts as normal with the
    variance sum x^2 and a continuity correction by the largest x, exact for equal x. Other pairs have random signs.

    Args:
        parts: (methods, columns, objects), see `Effects`.
        draws: number of sign draws, shared by all pairs and columns.

    Returns:
        (pairs, columns) in 0 .. 1; of draws from 1 / (1 + draws) on.
    """
    p, few = np.ones((len(pairs), parts.shape[1])), []
    for place, (first, second) in enumerate(pairs):
        apart = parts[first] - parts[second]
        variance = (apart**2).sum(axis=1)
        if (variance**2 < MANY * (apart**4).sum(axis=1)).any():
            few.append(place)
        else:
            beyond = np.abs(apart.sum(axis=1)) - np.abs(apart).max(axis=1)
            p[place] = erfc(beyond.clip(0) / np.sqrt(2 * variance.clip(np.finfo(float).tiny)))
    if few:
        p[few] = _drawn_p(parts, [pairs[place] for place in few], draws, seed)
    return p


def _drawn_p(
    parts: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> np.ndarray:
    """The fraction of random signs with at least the observed absolute difference, counting the observed one."""
    used, places = np.unique(pairs, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    shape, flat = (len(used), parts.shape[1]), parts[used].reshape(-1, parts.shape[2])
    flat = flat[:, flat.any(axis=0)]  # the sign of a zero doesn't matter

    def differences(sums: np.ndarray) -> np.ndarray:
        """Absolute differences (draws, pairs, columns) from sums (draws, methods x columns); flipping is linear."""
        by_method = sums.reshape(-1, *shape)
        return np.abs(by_method[:, first] - by_method[:, second])

    observed = differences(flat.sum(axis=1)[None])
    objects = flat.shape[1]
    rng, words = np.random.default_rng(seed), objects // 64 + 1
    block = max(1, CHUNK // (8 * (objects + 2 * observed.size)))
    hits = np.zeros(observed.shape[1:], np.int64)
    for start in Progress(range(0, draws, block), desc="flipping signs", unit="block"):
        drawn = min(block, draws - start)
        bits = np.frombuffer(rng.bytes(8 * words * drawn), np.uint8).reshape(drawn, -1)
        signs = 2.0 * np.unpackbits(bits, axis=1, count=objects) - 1
        hits += (differences(signs @ flat.T) >= observed - ROUNDING).sum(axis=0)
    return (1 + hits) / (1 + draws)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm-adjusted p (tests,), which controls the family-wise error rate."""
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    return adjusted


def letters(alike: np.ndarray) -> list[str]:
    """Compact letter display: two items share a letter if and only if they are not told apart; the first have the first letters.

    Args:
        alike: (items, items) bool, symmetric, whether two are not told apart.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert-and-absorb algorithm.
    """
    groups = {frozenset(range(len(alike)))}
    for pair in itertools.combinations(range(len(alike)), 2):
        if not alike[pair]:
            both = {group for group in groups if group.issuperset(pair)}
            split = (groups - both) | {group - {one} for group in both for one in pair}
            groups = {group for group in split if not any(group < other for other in split)}
    ordered = enumerate(sorted(groups, key=sorted))
    named = [
        (group, string.ascii_lowercase[number % 26] + str(number // 26 or ""))
        for number, group in ordered
    ]
    return ["".join(name for group, name in named if item in group) for item in range(len(alike))]


def compare(effects: Effects, confidence: float, draws: int, seed: int) -> pd.DataFrame:
    """Compare all pairs of methods (or models), of which there is at least one, in each column of the effects.

    Returns:
        family of tests, method, other, target (the column), difference (percentage points, method minus other) with its confidence
        interval, p and Holm-adjusted p (NaN if not tested), and `spread` of the difference over seeds.
    """
    lines, pairs = [], list(itertools.combinations(range(len(effects.names)), 2))
    flipped, left_out = (
        sign_flip_p(effects.parts, pairs, draws, seed) if effects.few_seeds else None,
        effects.left_out,
    )
    for place, (column, (family, _)) in enumerate(effects.columns.items()):
        for pair, places in enumerate(pairs):
            names, sides = (
                [effects.names[one] for one in places],
                [effects.of(one, column) for one in places],
            )
            if len({side.shape for side in sides}) > 1:
                sides = [side.mean(axis=1, keepdims=True) for side in sides]
            apart = sides[0] - sides[1]
            tested = left_out.isdisjoint((name, column) for name in names)
            p = (
                np.nan
                if not tested
                else flipped[pair, place]
                if effects.few_seeds
                else p_over_runs(apart)
            )
            over_seeds = spread(apart[..., 0].mean(axis=0), confidence)
            lines.append(
                (family, *names, column, *over_runs(apart, confidence), p, np.nan, *over_seeds)
            )
    table = pd.DataFrame(lines, columns=["family", "method", "other", "target", *COMPARISON])
    table["p_holm"] = (
        table.dropna(subset=["p"]).groupby("family")["p"].transform(lambda p: holm(p.to_numpy()))
    )
    return table


def rank(comparisons: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Methods by mRI, best first, from `compare` of all pairs; two are told apart if their Holm-adjusted p is at most 1 - confidence.

    Returns:
        method, mri with its confidence interval and `spread` over seeds; rank_best (1 + number of better methods) and
        rank_worst (number of methods minus number of worse methods); letters (shared by methods that are not told apart);
        pretrained (better, worse or not told apart in comparison with the pretrained model).
    """
    own = comparisons[comparisons["other"] == PRETRAINED].rename(columns={"difference": "mri"})
    sign = np.zeros(
        (len(own) + 1, len(own) + 1), int
    )  # 1 where the first is better than the second
    sign[np.triu_indices(len(sign), 1)] = np.sign(comparisons["difference"]) * (
        comparisons["p_holm"] <= 1 - confidence
    )
    sign -= sign.T
    order = np.argsort(-own["mri"].to_numpy(), kind="stable")
    among = sign[np.ix_(order, order)]
    return own.iloc[order][["method", "mri", *IMAGES, *SEEDS]].assign(
        rank_best=1 + (among < 0).sum(axis=1),
        rank_worst=len(order) - (among > 0).sum(axis=1),
        letters=letters(among == 0),
        pretrained=[
            {1: "better", 0: "not told apart", -1: "worse"}[value] for value in sign[order, -1]
        ],
    )


def differences_from(
    effects: Effects, methods: Sequence[str], compare_to: str, confidence: float, seed: int
) -> pd.DataFrame:
    """Differences of mRI from a reference, with simultaneous intervals over the methods.

    Args:
        methods: those with a rank.
        compare_to: the reference; if it is none of them, the pretrained model takes its place.
        seed: of the draws of trainings.

    Returns:
        method, reference, difference, diff_low, diff_high (percentage points); of the reference
        itself the difference is 0, without an interval.
    """
    reference = compare_to if compare_to in methods else PRETRAINED
    others = [name for name in methods if name != reference]
    table = pd.DataFrame({"method": methods, "reference": reference, "difference": 0.0})
    table = table.assign(diff_low=np.nan, diff_high=np.nan).set_index("method")
    if others:
        values = _mri_values(effects)
        differences = np.array([values[name] - values[reference] for name in others])
        intervals = simultaneous_intervals(differences, confidence, seed)
        table.loc[others, ["difference", "diff_low", "diff_high"]] = np.transpose(intervals)
    return table.reset_index()


def smallest_difference(
    effects: Effects, methods: Sequence[str], tests: int, confidence: float
) -> float:
    """Median over pairs of methods of `smallest_told`, in percentage points.

    Pairs that are right on the same images in all runs are left out: that nothing varies tells
    nothing about what could be told apart. NaN if no pair is left.
    """
    values = _mri_values(effects)
    pairs = itertools.combinations(methods, 2)
    told = [smallest_told(values[one] - values[other], tests, confidence) for one, other in pairs]
    told_of_pairs_that_differ = [difference for difference in told if difference > 0]
    if not told_of_pairs_that_differ:
        return np.nan
    return float(np.median(told_of_pairs_that_differ))


def _mri_values(effects: Effects) -> dict[str, np.ndarray]:
    """Values that mRI is the mean of, (targets, seeds, 1 + replicates), by method."""
    _, targets = effects.columns[None]
    return dict(zip(effects.names, effects.values[:, targets], strict=True))


def tables_of(
    effects: Effects, confidence: float, draws: int, seed: int, compare_to: str
) -> dict[str, pd.DataFrame]:
    """The tables of one model and size, by name, without the columns model and size; some may be empty."""
    every = compare(effects, confidence, draws, seed)
    own = (
        every[every["other"] == PRETRAINED]
        .rename(columns={"difference": "ri"})
        .sort_values("method", kind="stable")
    )
    tested = every.dropna(subset=["p"])
    found = {
        "seeds_ri": own.dropna(subset=["target"]),
        "comparisons": tested[tested["target"].isna()],
        "comparisons_ri": tested.dropna(subset=["target"]),
    }
    ranking = rank(found["comparisons"], confidence)
    methods = ranking["method"].tolist()
    differences = differences_from(effects, methods, compare_to, confidence, seed)
    tests = len(found["comparisons"])
    smallest = smallest_difference(effects, methods, tests, confidence)
    ranking = ranking.assign(
        **{name: differences[name].to_numpy() for name in REFERENCE}, smallest_difference=smallest
    )
    return found | {"ranking": ranking}


def few_objects(table: pd.DataFrame) -> str:
    """Note on a table with a row of fewer than `FEWEST_OBJECTS` objects; empty for others."""
    fewest = table["objects"].min() if "objects" in table else np.nan
    few = (
        f"fewer than {FEWEST_OBJECTS} objects ({fewest:.0f}): the test finds differences too often"
    )
    return few if fewest < FEWEST_OBJECTS else ""


def comparison_tables(
    *,
    counts: Path,
    fit: Path,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    replicates: int,
    confidence: float,
    seed: int,
    compare_to: str,
    draws: int = DRAWS,
) -> dict[str, pd.DataFrame]:
    """comparisons, comparisons_ri, ranking and seeds_ri from a grid's counts, without curves, and `fit_table`.

    `compare_to` is the method that differences in the ranking are from, see `differences_from`.
    """
    found = []
    unfinished = read_table(fit).query("unfinished == 'yes'")
    for of_model in read_counts(counts):
        plain = of_model.of(
            [place for place, state in enumerate(of_model.states) if state[-1] is None]
        )
        ood = ood_accuracies(
            plain, object_weights(plain.objects, replicates, seed), ood_datasets, source_groups
        )
        parts = {
            s: after - before
            for s, (before, after) in ood_parts(plain, ood_datasets, source_groups).items()
        }
        for size in sorted({state[3] for state in ood}):
            model = plain.states[0][0]
            left_out = set(
                unfinished[(unfinished["model"] == model) & (unfinished["size"] == size)]["method"]
            )
            effects = effects_of(ood, parts, size, left_out)
            tables = tables_of(effects, confidence, draws, seed, compare_to)
            objects = ri_objects(
                plain, [*filter(None, effects.columns)], ood_datasets, source_groups
            )
            for name, table in tables.items():
                of_rows = [
                    objects.get(target, objects[None])
                    for target in table.get("target", [None] * len(table))
                ]
                tables[name] = table.assign(model=model, size=size, objects=of_rows)
            found.append(tables)
    whole = {}
    for name, columns in COLUMNS.items():
        tables = [tables[name][columns] for tables in found if len(tables[name])]
        whole[name] = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
        if name.startswith("comparisons") and (note := few_objects(whole[name])):
            log.warning("%s: %s", name, note)
    return whole
