"""Do distances between datasets predict what fine-tuning does? Correlations with exact permutation tests.

Three levels, each per model, method, size of the training part and kind of distance; seeds are averaged:

    pairs            target i and another dataset j out of distribution: their distance, A_i(j) - A_pre(j)
    targets          target i: distance to what the models were pretrained for where the family has it, else the mean
                     distance to the other datasets out of distribution; RI_i
    in_distribution  target i: distance to what the models were pretrained for, change of accuracy on that (the question of
                     arXiv 2410.21582); where the run evaluates it

Pairs that share a dataset hang together. Their p is Mantel's (1967): datasets change places in the distance matrix, rows
and columns together, and only then are pairs compared. For the same reason they have no interval.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from rib.io import log, write_table
from rib.runs import PRETRAINED

MOST = 1_000_000  # permutations up to which all are tried
DRAWS = 100_000  # permutations otherwise
CHUNK = 20_000  # permutations at once
TIE = 1e-9  # correlations nearer than this are equal
FEWEST = 3  # points of which a correlation says anything
LEVELS = ("pairs", "targets", "in_distribution")
STATISTICS = ("pearson", "spearman")
KEYS = ["model", "method", "size", "distance", "level", "statistic"]
COLUMNS = [*KEYS, "value", "ci_low", "ci_high", "p", "permutations", "exact", "n"]


def permutations(n: int, seed: int) -> tuple[np.ndarray, bool]:
    """Orders of n things: every one where they are few, else seeded draws.

    Returns:
        (count, n) int64, and whether these are all.
    """
    if math.factorial(n) <= MOST:
        return np.array(list(itertools.permutations(range(n)))), True
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1), False


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r between the rows of (a, n) and of (b, n): (a, b), NaN where a row is constant."""
    return _standardised(x) @ _standardised(y).T


def _standardised(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    scale = TIE * np.abs(rows).max(axis=1, keepdims=True)
    return np.divide(centred, length, where=length > scale, out=np.full_like(centred, np.nan))


def permuted_p(
    permuted: Callable[[np.ndarray], np.ndarray], responses: np.ndarray, orders: np.ndarray, exact: bool, ranks: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations, and how often a permutation gives one at least as far from 0.

    Args:
        permuted: from orders (b, k) to the predictor under each, (b, n).
        responses: (runs, n).
        orders: (count, k), see `permutations`.
        exact: whether those are all. Of draws the observed order counts as one more, which keeps p valid.
        ranks: Spearman's correlation in place of Pearson's.

    Returns:
        value (runs,) in -1 to 1, p (runs,); NaN where a correlation has no value.
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
    """Interval of a correlation over n independent points by Fisher's z; NaN where n or the value allow none.

    Of Spearman's correlation z has the variance of Bonett & Wright 2000. For a handful of points it is wide, as it must
    be; a bootstrap of so few is too narrow.
    """
    if n <= FEWEST or not abs(value) < 1 - TIE:
        return np.nan, np.nan
    z, variance = np.arctanh(value), (1 + value**2 / 2 if ranks else 1) / (n - 3)
    reach = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))


def to_targets(
    distances: pd.DataFrame, targets: Sequence[str], among: Sequence[str], in_distribution: str | None
) -> dict[str, float]:
    """Distance of each target to the dataset in distribution, or without one its mean distance to the others.

    Args:
        distances: first, second, value of one model and kind.
        targets: datasets.
        among: datasets that are out of distribution.
        in_distribution: the dataset that stands for what models were pretrained for, None where there is none.
    """
    others = {name: [other for other in among if other != name] for name in targets}
    if in_distribution:
        others = {name: [in_distribution] for name in targets}
    names = sorted({*targets, *itertools.chain(*others.values())})
    place, matrix = {name: position for position, name in enumerate(names)}, _matrix(distances, names)
    return {name: float(np.mean([matrix[place[name], place[other]] for other in others[name]])) for name in targets}


def _matrix(distances: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Symmetric (datasets, datasets) of one model and kind; what is on the diagonal is never used."""
    known = {frozenset(pair): value for *pair, value in distances[["first", "second", "value"]].itertuples(index=False)}
    return np.array([[np.nan if a == b else known[frozenset((a, b))] for b in names] for a in names])


def association_table(
    distances: pd.DataFrame,
    accuracy: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    targets: Sequence[str],
    among: Sequence[str],
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
        targets: datasets fine-tuned on.
        among: datasets that count in RI.
        in_distribution: the dataset that stands for what models were pretrained for, None where there is none.
        pairs: False leaves that level out, where RI leaves images out that the pairs' accuracies are over.
        confidence: coverage of the intervals, between 0 and 1.
        seed: of permutations that are drawn.

    Returns:
        A line per model, method, size, distance, level and statistic: value, its interval, two-sided p, permutations and
        whether these are all (exact), n points. Without a value where there are fewer than three points, or all are equal.
    """
    lines = []
    for model, of_model in distances.groupby("model", sort=False):
        changes = _changes(accuracy[accuracy["model"] == model])
        gains = ri[ri["model"] == model].groupby(["method", "size", "target"], sort=False)["ri"].mean()
        runs = list(dict.fromkeys(key[:2] for key in gains.index))
        if not runs:
            continue
        cells = [(target, other) for target in targets for other in among if other != target]
        responses = {"targets": [[gains[(*run, target)] for target in targets] for run in runs]}
        if pairs:
            responses["pairs"] = [[changes[(*run, *cell)] for cell in cells] for run in runs]
        if in_distribution in set(accuracy["dataset"]):
            lost = [[changes[(*run, target, in_distribution)] for target in targets] for run in runs]
            responses["in_distribution"] = lost
        for kind, found in of_model.groupby("distance", sort=False):
            apart = np.array(list(to_targets(found, targets, among, in_distribution).values()))
            for level in (name for name in LEVELS if name in responses):
                permuted = _renamed(_matrix(found, among), among, cells) if level == "pairs" else apart.__getitem__
                places = len(among if level == "pairs" else targets)
                tested = _tested(permuted, np.array(responses[level]), places, level == "pairs", confidence, seed)
                lines += [(model, *runs[run], kind, level, *rest) for run, *rest in tested]
        log.info("%s: distances compared with what %d methods did", model, len(runs))
    return pd.DataFrame(lines, columns=COLUMNS).sort_values(KEYS[:3], kind="stable", key=_appearance)


def _appearance(column: pd.Series) -> pd.Series:
    """Order of first appearance, as a sort key."""
    return pd.Series(pd.factorize(column)[0], index=column.index)


def _changes(accuracy: pd.DataFrame) -> dict[tuple, float]:
    """A_i(j) - A_pre(j) of one model, mean over seeds, by method, size, target i and dataset j."""
    pretrained = accuracy["method"] == PRETRAINED
    before = accuracy[pretrained].set_index("dataset")["accuracy"]
    after = accuracy[~pretrained].groupby(["method", "size", "target", "dataset"], sort=False)["accuracy"].mean()
    return {key: value - before[key[-1]] for key, value in after.items()}


def _renamed(
    matrix: np.ndarray, names: Sequence[str], cells: Sequence[tuple[str, str]]
) -> Callable[[np.ndarray], np.ndarray]:
    """Cells of a matrix when its datasets change places, rows and columns together: (b, datasets) to (b, cells)."""
    place = {name: position for position, name in enumerate(names)}
    rows, columns = (np.array([place[cell[side]] for cell in cells]) for side in (0, 1))
    return lambda orders: matrix[orders[:, rows], orders[:, columns]]


def _tested(
    permuted: Callable[[np.ndarray], np.ndarray],
    responses: np.ndarray,
    places: int,
    pairs: bool,
    confidence: float,
    seed: int,
) -> Iterator[tuple]:
    """Per run and statistic: the run's place, statistic, value, interval, p, permutations, exact, n."""
    n = responses.shape[1]
    orders, exact = permutations(places, seed) if n >= FEWEST else (np.empty((0, places), np.int64), True)
    for statistic in STATISTICS:
        ranks = statistic == "spearman"
        values, ps = np.full((2, len(responses)), np.nan)
        if n >= FEWEST:
            values, ps = permuted_p(permuted, responses, orders, exact, ranks)
        for run, (value, p) in enumerate(zip(values, ps, strict=True)):
            sure = (np.nan, np.nan) if pairs else interval(value, n, confidence, ranks)
            yield (run, statistic, value, *sure, p, len(orders), exact, n)


def write_tables(
    *,
    measured: Mapping[str, Sequence[Path]],
    accuracy: Path,
    ri: Path,
    conditions: str,
    outputs: Mapping[str, Path],
    **choices,
) -> None:
    """Write all distances, and what they are associated with.

    Args:
        measured: by model the CSV files of its distances.
        accuracy: CSV of the run.
        ri: likewise.
        conditions: what the numbers hang on besides their columns; the last column of each table.
        outputs: paths of `distances` and `association`.
        choices: see `association_table`.
    """
    parts = [pd.read_csv(path).assign(model=model) for model, paths in measured.items() for path in paths]
    distances = pd.concat(parts, ignore_index=True)
    distances = distances[["model", *(name for name in distances if name != "model")]]
    changes, gains = (pd.read_csv(path, dtype={"size": str}) for path in (accuracy, ri))
    tables = {"distances": distances, "association": association_table(distances, changes, gains, **choices)}
    for name, table in tables.items():
        write_table(outputs[name], table.assign(conditions=conditions))
