"""Paired comparison of the methods of one model: differences of mRI, a ranking with ties, and the spread over seeds.

Two kinds of uncertainty are told apart. Images: intervals resample objects (percentile bootstrap; one draw serves all
methods, so that differences are paired), tests flip signs of objects; with several seeds, both are of the mean over the
seeds that were run. Seeds: standard deviation and t-interval over training seeds, on the images at hand.

The test asks whether two methods, on the same objects, could be exchanged. mRI_A - mRI_B is a sum over objects
(`rib.metrics.ri_parts`); under the null hypothesis the sign of each object's part is a coin's, one coin for all targets,
datasets and seeds in which the object appears. p is the share of draws that are at least as large either way, the observed
one among them (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585). Holm's correction is over all pairs of a model and size,
those with the pretrained model among them (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).
"""

import itertools
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rib.io import Progress, write_table
from rib.metrics import Counts, Ood, State, interval, object_weights, ood_accuracies, read_counts, ri_parts
from rib.runs import PRETRAINED

DRAWS = 100_000  # of signs
CHUNK = 1 << 26  # bytes of signs at a time
# Percentage points. Sums of one set of numbers in another order differ by less, and an image of millions counts more.
ROUNDING = 1e-9
IMAGES = ["ci_low", "ci_high"]
SEEDS = ["seeds", "sd", "seed_low", "seed_high"]
COMPARISON = ["difference", *IMAGES, "p", "p_holm", *SEEDS]
COLUMNS = {
    "comparisons": ["model", "method", "other", "size", *COMPARISON],
    "comparisons_ri": ["model", "method", "other", "target", "size", *COMPARISON],
    "ranking": ["model", "method", "size", "mri", *IMAGES, "rank_best", "rank_worst", "ties", "pretrained"],
    "seeds": ["model", "method", "size", "mri", *IMAGES, *SEEDS],
    "seeds_ri": ["model", "method", "target", "size", "ri", *IMAGES, *SEEDS],
}


@dataclass(frozen=True)
class Effects:
    """What the methods of one model and size did to each target's RI, and in the last column to mRI.

    Attributes:
        methods: names; the last is the pretrained model, whose RI is 0.
        targets: names; a column each.
        values: (methods, columns, seeds) percentage points.
        replicates: (methods, columns, replicates) bootstrap replicates of the mean over seeds.
        parts: (methods, columns, objects) what each object adds to the mean over seeds.
    """

    methods: list[str]
    targets: list[str]
    values: np.ndarray
    replicates: np.ndarray
    parts: np.ndarray

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two methods, in order."""
        return list(itertools.combinations(range(len(self.methods)), 2))


def effects_of(ood: Mapping[State, Ood], parts: Mapping[State, np.ndarray], size: str) -> Effects:
    """Gather the effects of one model's runs of a size.

    Args:
        ood: by fine-tuned state, accuracies off the target; replicate 0 is the observed one.
        parts: by fine-tuned state, see `rib.metrics.ri_parts`.
        size: of the training part.
    """
    states = [state for state in ood if state[3] == size]
    methods, targets, seeds = (sorted({state[field] for state in states}) for field in (1, 2, 4))
    model = states[0][0]

    def table(value: Mapping[State, np.ndarray]) -> np.ndarray:
        """(methods and pretrained, targets and their mean, seeds, ...)."""
        found = np.array([[[value[model, m, t, size, s, None] for s in seeds] for t in targets] for m in methods])
        found = np.concatenate([found, found.mean(axis=1, keepdims=True)], axis=1)
        return np.concatenate([found, np.zeros_like(found[:1])])

    change = table({state: pair.after - pair.before for state, pair in ood.items()})
    return Effects(
        methods=[*methods, PRETRAINED],
        targets=targets,
        values=change[..., 0],
        replicates=change[..., 1:].mean(axis=2),
        parts=table(parts).mean(axis=2),
    )


def sign_flip_p(parts: np.ndarray, pairs: Sequence[tuple[int, int]], draws: int, seed: int) -> np.ndarray:
    """Two-sided p of differences between methods, by flipping the sign of each object's part in them.

    Args:
        parts: (methods, columns, objects), see `Effects`.
        pairs: of methods.
        draws: of signs; one draw serves all pairs and columns.
        seed: of the draws.

    Returns:
        (pairs, columns) in 1 / (1 + draws) .. 1.
    """
    shape, flat = parts.shape[:2], parts.reshape(-1, parts.shape[2])
    flat = flat[:, flat.any(axis=0)]  # the sign of nothing changes nothing
    first, second = np.transpose(pairs)

    def differences(sums: np.ndarray) -> np.ndarray:
        """(draws, pairs, columns), absolute, of sums (draws, methods x columns): flipping is linear."""
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
    """Holm-adjusted p (tests,): reject where it is at most the level, and no true hypothesis is likely rejected."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def seed_spread(values: np.ndarray, confidence: float) -> tuple[int, float, float, float]:
    """Number of seeds, standard deviation over them (n - 1), and Student's t-interval of their mean.

    Args:
        values: (seeds,), one per training seed.
        confidence: coverage of the interval, between 0 and 1.

    Returns:
        NaN in place of the last three where there is one seed, which tells nothing of others.
    """
    n = len(values)
    if n < 2:
        return n, np.nan, np.nan, np.nan
    sd = values.std(ddof=1)
    half = stdtrit(n - 1, (1 + confidence) / 2) * sd / np.sqrt(n)
    return n, sd, values.mean() - half, values.mean() + half


def letters(tied: np.ndarray) -> list[str]:
    """Compact letter display: two items share a letter if and only if they tie.

    Args:
        tied: (items, items) bool, symmetric.

    Returns:
        Of each item its letters; the first items have the first ones.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert and absorb.
    """
    groups = [frozenset(range(len(tied)))]
    for pair in itertools.combinations(range(len(tied)), 2):
        if not tied[pair]:
            split = [part for group in groups for part in _without(group, pair)]
            groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    names = string.ascii_lowercase
    named = {
        group: names[number % 26] + (str(number // 26) if number >= 26 else "")
        for number, group in enumerate(sorted(groups, key=sorted))
    }
    return ["".join(name for group, name in named.items() if item in group) for item in range(len(tied))]


def _without(group: frozenset[int], pair: tuple[int, int]) -> list[frozenset[int]]:
    """A group, or, where it holds both of a pair, the group without the one and without the other."""
    return [group - {one} for one in pair] if group.issuperset(pair) else [group]


def compare(effects: Effects, confidence: float, draws: int, seed: int) -> pd.DataFrame:
    """A line per column of the effects and pair of methods.

    Returns:
        method, other, target (None for mRI), difference (percentage points, method less other) with its bootstrap
        interval, p and Holm-adjusted p of the sign flips, and what `seed_spread` says of the difference.
    """
    p = sign_flip_p(effects.parts, effects.pairs, draws, seed)
    adjusted = np.apply_along_axis(holm, 0, p)
    lines = []
    for column, target in enumerate([*effects.targets, None]):
        for pair, (a, b) in enumerate(effects.pairs):
            values = effects.values[a, column] - effects.values[b, column]
            replicates = effects.replicates[a, column] - effects.replicates[b, column]
            names = effects.methods[a], effects.methods[b], target
            sure = (values.mean(), *interval(replicates, confidence), p[pair, column], adjusted[pair, column])
            lines.append((*names, *sure, *seed_spread(values, confidence)))
    return pd.DataFrame(lines, columns=["method", "other", "target", *COMPARISON])


def rank(effects: Effects, comparisons: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Methods by mRI, best first, with ties: two whose Holm-adjusted p is above 1 - confidence.

    Args:
        effects: of a model and size.
        comparisons: of their mRI, see `compare`.
        confidence: between 0 and 1.

    Returns:
        method, mri with its interval; rank_best and rank_worst, between which its rank lies (one more than the number of
        methods that are better, and the number of all less that of those that are worse); ties (letters, shared by
        methods that tie); pretrained (better, worse or tied: how it compares with no fine-tuning).
    """
    n = len(effects.methods)
    sign = np.zeros((n, n), int)  # 1 where the first is better than the second
    for (a, b), line in zip(effects.pairs, comparisons.to_dict("records"), strict=True):
        sign[a, b] = np.sign(line["difference"]) * (line["p_holm"] <= 1 - confidence)
        sign[b, a] = -sign[a, b]
    mri = effects.values[:-1, -1].mean(axis=1)
    order = np.argsort(-mri, kind="stable")
    among = sign[np.ix_(order, order)]
    return pd.DataFrame(
        {
            "method": [effects.methods[method] for method in order],
            "mri": mri[order],
            **dict(zip(IMAGES, np.transpose(_intervals(effects, -1, order, confidence)), strict=True)),
            "rank_best": 1 + (among < 0).sum(axis=1),
            "rank_worst": len(order) - (among > 0).sum(axis=1),
            "ties": letters(among == 0),
            "pretrained": [{1: "better", 0: "tied", -1: "worse"}[value] for value in sign[order, -1].tolist()],
        }
    )


def _intervals(effects: Effects, column: int, methods: Iterable[int], confidence: float) -> list[tuple[float, float]]:
    return [interval(effects.replicates[method, column], confidence) for method in methods]


def over_seeds(effects: Effects, confidence: float) -> pd.DataFrame:
    """A line per method and column: value (mean over seeds) with the images' interval, and the spread over seeds."""
    lines = []
    for column, target in enumerate([*effects.targets, None]):
        methods = range(len(effects.methods) - 1)
        for method, images in zip(methods, _intervals(effects, column, methods, confidence), strict=True):
            values = effects.values[method, column]
            names = effects.methods[method], target
            lines.append((*names, values.mean(), *images, *seed_spread(values, confidence)))
    return pd.DataFrame(lines, columns=["method", "target", "value", *IMAGES, *SEEDS])


def tables_of(effects: Effects, confidence: float, draws: int, seed: int) -> dict[str, pd.DataFrame]:
    """The tables of one model and size by name, less the columns that say which."""
    compared, spread = compare(effects, confidence, draws, seed), over_seeds(effects, confidence)
    of_mri = compared[compared["target"].isna()]
    return {
        "comparisons": of_mri,
        "comparisons_ri": compared.dropna(subset=["target"]),
        "ranking": rank(effects, of_mri, confidence),
        "seeds": spread[spread["target"].isna()].rename(columns={"value": "mri"}),
        "seeds_ri": spread.dropna(subset=["target"]).rename(columns={"value": "ri"}),
    }


def _model_tables(
    counts: Counts, weights: np.ndarray, among: Collection[str], groups: Mapping[str, str] | None, **settings
) -> dict[str, list[pd.DataFrame]]:
    """The tables of a model, one part per size; curves are left out."""
    counts = counts.of([place for place, state in enumerate(counts.states) if state[-1] is None])
    ood, parts = ood_accuracies(counts, weights, among, groups), ri_parts(counts, among, groups)
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    for size in sorted({state[3] for state in ood}):
        for name, table in tables_of(effects_of(ood, parts, size), **settings).items():
            found[name].append(table.assign(model=counts.states[0][0], size=size)[COLUMNS[name]])
    return found


def write_comparison(
    *,
    counts: Path,
    among: Collection[str],
    groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    draws: int,
    outputs: Mapping[str, Path],
) -> None:
    """Write comparisons, comparisons_ri, ranking, seeds and seeds_ri from the counts of a grid.

    Args:
        counts: see `rib.metrics.write_counts`.
        among, groups, conditions, replicates, confidence, seed: as in `rib.metrics.write_tables`; the bootstrap is its.
        draws: of signs.
        outputs: path of each table.
    """
    found: dict[str, list[pd.DataFrame]] = {name: [pd.DataFrame(columns=COLUMNS[name])] for name in COLUMNS}
    weights = None
    for of_model in read_counts(counts):
        if weights is None:
            weights = object_weights(of_model.objects, replicates, seed)
        settings = {"confidence": confidence, "draws": draws, "seed": seed}
        for name, parts in _model_tables(of_model, weights, among, groups, **settings).items():
            found[name] += parts
    for name, parts in found.items():
        table = pd.concat(parts[1:] or parts, ignore_index=True).assign(conditions=conditions)
        write_table(outputs[name], table)
