"""Do distances between datasets predict the effect of fine-tuning? Correlations with exact permutation tests.

There are three levels, each per model, method, training subset and kind of distance; seeds are averaged:

    pairs            target i and another OOD dataset j: their distance and A_i(j) - A_pre(j)
    targets          target i: RI_i and the distance to the in-distribution dataset or, if the family has none, the mean
                     distance to the other OOD datasets
    in_distribution  target i: distance to the in-distribution dataset and change of accuracy on it (the question of
                     arXiv 2410.21582), if it is evaluated

Pairs that share a dataset are not independent. Their p-value is therefore from a Mantel test (1967), which permutes
rows and columns of the distance matrix together, and they have no confidence interval. Targets are permuted among
themselves, as are the datasets that are only evaluated on: a test that mixes the two rejects too often if they differ.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from rib.analysis.fit import read_table
from rib.base.progress import log
from rib.config.run import PRETRAINED

MOST = 1_000_000  # up to this number, all permutations are enumerated
DRAWS = 100_000  # random permutations otherwise
CHUNK = 20_000  # permutations at once
TIE = 1e-9  # correlations closer than this are equal
FEWEST = 3  # minimum number of points for a correlation
STATISTICS = ("pearson", "spearman")
KEYS = ["model", "method", "size", "distance", "level", "statistic"]
Permuted = Callable[[np.ndarray], np.ndarray]  # from orders (b, k) to permuted predictors (b, n)
COLUMNS = [*KEYS, "value", "ci_low", "ci_high", "p", "permutations", "exact", "n"]


def permutations(*sizes: int, seed: int) -> tuple[np.ndarray, bool]:
    """Permutations of items within groups of the given sizes: all of them, or random draws if there are too many.

    Returns:
        (count, n) int64 with n the sum of sizes, groups one after the other, and whether these are all.
    """
    blocks = [np.arange(end - size, end) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
    if math.prod(map(math.factorial, sizes)) <= MOST:
        orders = [np.array(list(itertools.permutations(block)), np.int64) for block in blocks]
        chosen = np.indices([len(order) for order in orders]).reshape(
            len(orders), -1
        )  # one order of each group
        return np.hstack([order[rows] for order, rows in zip(orders, chosen, strict=True)]), True
    rng = np.random.default_rng(seed)
    return np.hstack([rng.permuted(np.tile(block, (DRAWS, 1)), axis=1) for block in blocks]), False


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r between the rows of (a, n) and (b, n): (a, b), NaN for constant rows."""
    return _standardised(x) @ _standardised(y).T


def _standardised(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    scale = TIE * np.abs(rows).max(axis=1, keepdims=True)
    return np.divide(centred, length, where=length > scale, out=np.full_like(centred, np.nan))


def permuted_p(
    permuted: Permuted, responses: np.ndarray, orders: np.ndarray, exact: bool, ranks: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and their two-sided permutation p-values.

    Args:
        responses: (runs, n).
        orders: (count, k), see `permutations`.
        exact: whether those are all. If not, the observed order is added to the draws, which keeps p valid.
        ranks: use Spearman's correlation instead of Pearson's.

    Returns:
        value (runs,) in -1 to 1, p (runs,); NaN where a correlation is undefined.
    """
    ranked = (lambda rows: rankdata(rows, axis=1)) if ranks else np.asarray
    y = ranked(responses)
    value = correlations(ranked(permuted(np.arange(orders.shape[1])[None])), y)[0]
    beyond = np.zeros(len(value), np.int64)
    for start in range(0, len(orders), CHUNK):
        found = correlations(ranked(permuted(orders[start : start + CHUNK])), y)
        beyond += (np.abs(found) >= np.abs(value) - TIE).sum(axis=0)
    p = beyond / len(orders) if exact else (beyond + 1) / (len(orders) + 1)
    return value, np.where(np.isnan(value), np.nan, p)


def interval(value: float, n: int, confidence: float, ranks: bool) -> tuple[float, float]:
    """Confidence interval of a correlation over n independent points with Fisher's z; NaN if it is undefined.

    For Spearman's correlation, z has the variance of Bonett & Wright 2000. With few points the interval is wide, as it
    should be; a bootstrap interval would be too narrow.
    """
    if n <= FEWEST or not abs(value) < 1 - TIE:
        return np.nan, np.nan
    z, variance = np.arctanh(value), (1 + value**2 / 2 if ranks else 1) / (n - 3)
    reach = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))


def to_targets(
    distances: pd.DataFrame,
    targets: Sequence[str],
    ood_datasets: Sequence[str],
    in_distribution: str | None,
) -> dict[str, float]:
    """Distance of each target to the in-distribution dataset, or its mean distance to the others, of one model and kind."""
    matrix, others = matrix_of(distances), [in_distribution] if in_distribution else ood_datasets
    own = {name: [other for other in others if other != name] for name in targets}
    return {
        name: float(matrix.loc[name, columns].to_numpy().mean()) for name, columns in own.items()
    }


def matrix_of(distances: pd.DataFrame) -> pd.DataFrame:
    """Symmetric distance matrix of one model and kind, NaN on the diagonal."""
    turned = distances.rename(columns={"first": "second", "second": "first"})
    return pd.concat([distances, turned]).pivot(index="first", columns="second", values="value")


def association_table(
    distances: pd.DataFrame,
    accuracy: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    targets: Sequence[str],
    ood_datasets: Sequence[str],
    in_distribution: str | None,
    pairs: bool,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Correlations of distances with changes of accuracy, at each level.

    Args:
        distances: model, first, second, distance, value.
        accuracy: model, method, target, size, seed, dataset, accuracy (percent).
        ri: model, method, target, size, seed, ri.
        pairs: whether to include that level; False if RI excludes images that the pairs' accuracies include.

    Returns:
        One row per model, method, size, distance, level and statistic: value, its confidence interval, two-sided p,
        number of permutations, whether these are all (exact), and n points. The value is NaN if there are fewer than
        three points or all are equal.
    """
    lines = []
    for model, of_model in distances.groupby("model", sort=False):
        own = accuracy[accuracy["model"] == model]
        before = own[own["method"] == PRETRAINED].set_index("dataset")["accuracy"]
        after = (
            own[own["method"] != PRETRAINED]
            .groupby(["method", "size", "target", "dataset"])["accuracy"]
            .mean()
        )
        changes = {
            key: value - before[key[-1]] for key, value in after.items()
        }  # A_i(j) - A_pre(j)
        gains = (
            ri[ri["model"] == model].groupby(["method", "size", "target"], sort=False)["ri"].mean()
        )
        runs = list(dict.fromkeys(key[:2] for key in gains.index))
        if not runs:
            continue
        only_evaluated = [name for name in ood_datasets if name not in targets]
        cells = [(target, other) for target in targets for other in ood_datasets if other != target]
        responses = (
            {"pairs": [[changes[(*run, *cell)] for cell in cells] for run in runs]} if pairs else {}
        )
        responses["targets"] = [[gains[(*run, target)] for target in targets] for run in runs]
        if in_distribution in set(accuracy["dataset"]):
            inside = [(target, in_distribution) for target in targets]
            responses["in_distribution"] = [
                [changes[(*run, *cell)] for cell in inside] for run in runs
            ]
        for kind, found in of_model.groupby("distance", sort=False):
            apart = np.array(
                list(to_targets(found, targets, ood_datasets, in_distribution).values())
            )
            for level, response in responses.items():
                mantel = level == "pairs"
                permuted = (
                    _renamed(found, [*targets, *only_evaluated], cells)
                    if mantel
                    else apart.__getitem__
                )
                sizes = (len(targets), len(only_evaluated)) if mantel else (len(targets),)
                tested = _tested(permuted, np.array(response), sizes, mantel, confidence, seed)
                lines += [(model, *runs[run], kind, level, *rest) for run, *rest in tested]
        log.info("%s: distances compared with the effects of %d methods", model, len(runs))
    # Models, methods and sizes in order of first appearance.
    table = pd.DataFrame(lines, columns=COLUMNS)
    return table.sort_values(KEYS[:3], kind="stable", key=lambda column: pd.factorize(column)[0])


def _renamed(
    distances: pd.DataFrame, names: Sequence[str], cells: Sequence[tuple[str, str]]
) -> Permuted:
    """Function from permutations (b, datasets) of the datasets' names to the distances (b, cells) of pairs of names."""
    matrix = matrix_of(distances).loc[names, names].to_numpy()
    rows, columns = ([names.index(cell[side]) for cell in cells] for side in (0, 1))
    return lambda orders: matrix[orders[:, rows], orders[:, columns]]


def _tested(
    permuted: Permuted,
    responses: np.ndarray,
    sizes: Sequence[int],
    pairs: bool,
    confidence: float,
    seed: int,
) -> Iterator[tuple]:
    """Yield run index, statistic, value, confidence interval, p, permutations, exact, n of each run and statistic."""
    enough = (n := responses.shape[1]) >= FEWEST
    orders, exact = (
        permutations(*sizes, seed=seed) if enough else (np.empty((0, sum(sizes)), np.int64), True)
    )
    for statistic in STATISTICS:
        ranks = statistic == "spearman"
        undefined = np.full((2, len(responses)), np.nan)
        values, ps = permuted_p(permuted, responses, orders, exact, ranks) if enough else undefined
        for run, (value, p) in enumerate(zip(values, ps, strict=True)):
            sure = (np.nan, np.nan) if pairs else interval(value, n, confidence, ranks)
            yield (run, statistic, value, *sure, p, len(orders), exact, n)


def distance_tables(
    *,
    models: Sequence[str],
    features: Sequence[Path],
    compression: Sequence[Path],
    accuracy: Path,
    ri: Path,
    choices: Mapping,
) -> dict[str, pd.DataFrame]:
    """The tables `distances` and `association`.

    Args:
        features, compression: CSV of each model's distances in feature space and by compression.
        choices: keyword arguments of `association_table`.
    """
    measured = zip(models, features, compression, strict=True)
    parts = {model: pd.concat(map(pd.read_csv, paths)) for model, *paths in measured}
    distances = pd.concat(parts, names=["model"]).reset_index("model")
    associated = association_table(distances, read_table(accuracy), read_table(ri), **choices)
    return {"distances": distances, "association": associated}
