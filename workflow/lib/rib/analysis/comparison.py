"""Paired comparison of the methods of one model: differences of mRI, a ranking with ties, and the spread over seeds.

There are two kinds of uncertainty. Images: confidence intervals resample objects (percentile bootstrap; all methods
share the draws, so differences are paired), and tests flip signs of objects; with several seeds, both apply to the mean
over these seeds. Seeds: standard deviation and t-interval over training seeds, with fixed images.

The null hypothesis of the test is that two methods are exchangeable on each object. mRI_A - mRI_B is a sum over objects
(`rib.analysis.ri.ri_parts`). Under the null hypothesis the sign of each object's term is random, jointly for all
targets, datasets and seeds in which the object appears. p is the fraction of draws with at least the observed absolute
difference, counting the observed one (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585). Holm's correction is over
all pairs of a model and size, including those with the pretrained model (Holm 1979, Scandinavian Journal of Statistics
6, 65-70).
"""

import itertools
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rib.analysis.bootstrap import interval, object_weights
from rib.analysis.counts import Counts, State, read_counts
from rib.analysis.ri import Ood, ood_accuracies, ri_parts
from rib.base.files import write_table
from rib.base.progress import Progress
from rib.config.run import PRETRAINED

DRAWS = 100_000  # of signs
CHUNK = 1 << 26  # bytes of signs at a time
# Percentage points: more than the rounding error of a sum, less than the effect of one image in millions.
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
    """RI of each method and target of one model and size; the last column is mRI.

    Attributes:
        methods: names; the last is the pretrained model, whose RI is 0.
        targets: names, one per column except the last.
        values: (methods, columns, seeds) percentage points.
        replicates: (methods, columns, replicates) bootstrap replicates of the mean over seeds.
        parts: (methods, columns, objects) contribution of each object to the mean over seeds.
    """

    methods: list[str]
    targets: list[str]
    values: np.ndarray
    replicates: np.ndarray
    parts: np.ndarray

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of methods, in order."""
        return list(itertools.combinations(range(len(self.methods)), 2))


def effects_of(ood: Mapping[State, Ood], parts: Mapping[State, np.ndarray], size: str) -> Effects:
    """Collect the effects of one model's runs with the same training subset.

    Args:
        ood: accuracies on the other datasets, by fine-tuned state; replicate 0 is the observed one.
        parts: by fine-tuned state, see `rib.analysis.ri.ri_parts`.
        size: size of the training subset.
    """
    states = [state for state in ood if state[3] == size]
    methods, targets, seeds = (sorted({state[field] for state in states}) for field in (1, 2, 4))
    model = states[0][0]

    def table(value: Mapping[State, np.ndarray]) -> np.ndarray:
        """Array (methods and pretrained, targets and their mean, seeds, ...)."""
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
    """Two-sided p of differences between methods, by random sign flips of the objects' contributions.

    Args:
        parts: (methods, columns, objects), see `Effects`.
        pairs: pairs of methods.
        draws: number of sign draws, shared by all pairs and columns.
        seed: seed of the draws.

    Returns:
        (pairs, columns) in 1 / (1 + draws) .. 1.
    """
    shape, flat = parts.shape[:2], parts.reshape(-1, parts.shape[2])
    flat = flat[:, flat.any(axis=0)]  # the sign of a zero doesn't matter
    first, second = np.transpose(pairs)

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
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def seed_spread(values: np.ndarray, confidence: float) -> tuple[int, float, float, float]:
    """Number of seeds, standard deviation over them (n - 1), and Student's t-interval of their mean.

    Args:
        values: (seeds,), one per training seed.

    Returns:
        With one seed, the last three are NaN.
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
        Letters of each item; the first items have the first letters.

    Source: Piepho 2004 (doi 10.1198/1061860043515), insert-and-absorb algorithm.
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
    """Split a group that contains both items of a pair: without the one and without the other."""
    return [group - {one} for one in pair] if group.issuperset(pair) else [group]


def compare(effects: Effects, confidence: float, draws: int, seed: int) -> pd.DataFrame:
    """Compare all pairs of methods, in each column of the effects.

    Returns:
        method, other, target (None for mRI), difference (percentage points, method minus other) with its bootstrap
        confidence interval, p and Holm-adjusted p of the sign flips, and `seed_spread` of the difference.
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
    """Methods by mRI, best first; two methods tie if their Holm-adjusted p is above 1 - confidence.

    Args:
        effects: effects of a model and size.
        comparisons: comparisons of their mRI, see `compare`.

    Returns:
        method, mri with its confidence interval; rank_best (1 + number of better methods) and rank_worst (number of
        methods minus number of worse methods); ties (letters shared by tied methods); pretrained (better, worse or tied
        in comparison with the pretrained model).
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
    """Value of each method and column (mean over seeds) with its confidence interval over images and seed spread."""
    lines = []
    for column, target in enumerate([*effects.targets, None]):
        methods = range(len(effects.methods) - 1)
        for method, images in zip(methods, _intervals(effects, column, methods, confidence), strict=True):
            values = effects.values[method, column]
            names = effects.methods[method], target
            lines.append((*names, values.mean(), *images, *seed_spread(values, confidence)))
    return pd.DataFrame(lines, columns=["method", "target", "value", *IMAGES, *SEEDS])


def tables_of(effects: Effects, confidence: float, draws: int, seed: int) -> dict[str, pd.DataFrame]:
    """The tables of one model and size, by name, without the columns model and size."""
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
    counts: Counts,
    weights: np.ndarray,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    **settings,
) -> dict[str, list[pd.DataFrame]]:
    """The tables of a model, one part per size, without curves."""
    counts = counts.of([place for place, state in enumerate(counts.states) if state[-1] is None])
    ood, parts = (
        ood_accuracies(counts, weights, ood_datasets, source_groups),
        ri_parts(counts, ood_datasets, source_groups),
    )
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    for size in sorted({state[3] for state in ood}):
        for name, table in tables_of(effects_of(ood, parts, size), **settings).items():
            found[name].append(table.assign(model=counts.states[0][0], size=size)[COLUMNS[name]])
    return found


def write_comparison(
    *,
    counts: Path,
    ood_datasets: Collection[str],
    source_groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    draws: int = DRAWS,
    outputs: Mapping[str, Path],
) -> None:
    """Write comparisons, comparisons_ri, ranking, seeds and seeds_ri from the counts of a grid.

    Args:
        counts: see `rib.analysis.counts.write_counts`.
        draws: number of sign draws.
        outputs: path of each table.
    """
    found: dict[str, list[pd.DataFrame]] = {name: [pd.DataFrame(columns=COLUMNS[name])] for name in COLUMNS}
    weights = None
    for of_model in read_counts(counts):
        if weights is None:
            weights = object_weights(of_model.objects, replicates, seed)
        settings = {"confidence": confidence, "draws": draws, "seed": seed}
        for name, parts in _model_tables(of_model, weights, ood_datasets, source_groups, **settings).items():
            found[name] += parts
    for name, parts in found.items():
        table = pd.concat(parts[1:] or parts, ignore_index=True).assign(conditions=conditions)
        write_table(outputs[name], table)
