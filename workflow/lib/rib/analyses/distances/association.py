"""Do distances between datasets predict the effect of fine-tuning?

The answer is a correlation with a permutation test, exact where possible, per model, method,
training subset and kind of distance; seeds are averaged. There are three levels:

    pairs            target i and another OOD dataset j: their distance and A_i(j) - A_pre(j)
    targets          target i: RI_i and the distance to the in-distribution dataset or, if the
                     family has none, the mean distance to the other OOD datasets
    in_distribution  target i: distance to the in-distribution dataset and change of accuracy on it
                     (the question of arXiv 2410.21582), if it is evaluated

Pairs that share a dataset are not independent. Their p-value therefore comes from a Mantel test
(1967), which permutes rows and columns of the distance matrix together, and they have no confidence
interval. Targets are permuted among targets, evaluation-only datasets among themselves: a test that
mixes the two kinds rejects too often if they differ.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from rib.base.progress import log
from rib.schema.run import PRETRAINED

MOST = 1_000_000  # up to this number, all permutations are enumerated
DRAWS = 100_000  # random permutations otherwise
CHUNK = 20_000  # permutations at once, to bound memory
TIE = 1e-9  # correlations closer than this are equal
FEWEST = 3  # minimum number of points for a correlation
PEARSON = "pearson"
SPEARMAN = "spearman"
STATISTICS = (PEARSON, SPEARMAN)
METHOD_AND_SIZE = ["method", "size"]
KEYS = ["model", *METHOD_AND_SIZE, "distance", "level", "statistic"]
COLUMNS = [*KEYS, "value", "ci_low", "ci_high", "p", "permutations", "exact", "n"]

# A function from b permutations of k datasets, (b, k), to the n distances after each, (b, n).
PermutedPredictors = Callable[[np.ndarray], np.ndarray]


def permutations(*sizes: int, seed: int) -> tuple[np.ndarray, bool]:
    """Orders for a permutation test: all permutations of n items that keep each in its group.

    Groups of sizes 2 and 1 give [0, 1, 2] and [1, 0, 2]. If there are too many to try them all,
    random ones are drawn.

    Returns:
        (count, n) int64, and whether these are all.
    """
    groups = []  # the items of each group
    for size, end in zip(sizes, np.cumsum(sizes), strict=True):
        groups.append(np.arange(end - size, end))
    number_of_permutations = math.prod(math.factorial(size) for size in sizes)
    if number_of_permutations <= MOST:
        return _all_permutations(groups), True
    rng = np.random.default_rng(seed)
    draws_of_groups = [rng.permuted(np.tile(group, (DRAWS, 1)), axis=1) for group in groups]
    return np.hstack(draws_of_groups), False


def _all_permutations(groups: Sequence[np.ndarray]) -> np.ndarray:
    """All orders that keep items in their group: [0, 1] and [2] give [[0, 1, 2], [1, 0, 2]]."""
    orders_of_groups = [np.array(list(itertools.permutations(group)), np.int64) for group in groups]
    counts = [len(orders) for orders in orders_of_groups]
    # (groups, count): which order of each group a combination takes.
    combinations = np.indices(counts).reshape(len(groups), -1)
    chosen_orders = []
    for orders, chosen in zip(orders_of_groups, combinations, strict=True):
        chosen_orders.append(orders[chosen])
    return np.hstack(chosen_orders)


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of x (a, n) with each row of y (b, n): (a, b).

    NaN for constant rows.
    """
    return _standardised(x) @ _standardised(y).T


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Centred rows of length 1, whose inner products are correlations; NaN for constant rows."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    rounding_error = TIE * np.abs(rows).max(axis=1, keepdims=True)
    undefined = np.full_like(centred, np.nan)
    return np.divide(centred, length, where=length > rounding_error, out=undefined)


def permuted_p(
    permuted_predictors: PermutedPredictors,
    responses: np.ndarray,
    orders: np.ndarray,
    exact: bool,
    ranks: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of predictors (distances) with responses (effects), and two-sided p-values.

    p is the share of permutations whose correlation is at least as far from 0.

    Args:
        permuted_predictors: function that maps b permutations of k datasets, (b, k), to the n
            distances after each, (b, n).
        responses: effects of fine-tuning, (runs, n), such as RI of n targets for each run.
        orders: (count, k) permutations.
        exact: whether `orders` are all permutations. If not, the observed order is added to them,
            which keeps p valid.
        ranks: use Spearman's correlation instead of Pearson's.

    Returns:
        Correlations (runs,), -1 to 1, and p (runs,); NaN where a correlation is undefined.
    """
    if ranks:
        responses = rankdata(responses, axis=1)

    def correlations_after(permutations_of_block: np.ndarray) -> np.ndarray:
        """Correlations (b, runs) with the effects of each run, after permutations (b, k)."""
        predictors = permuted_predictors(permutations_of_block)
        if ranks:
            predictors = rankdata(predictors, axis=1)
        return correlations(predictors, responses)

    identity = np.arange(orders.shape[1])[None]
    observed = correlations_after(identity)[0]
    as_extreme = np.zeros(len(observed), np.int64)
    for start in range(0, len(orders), CHUNK):
        permuted = correlations_after(orders[start : start + CHUNK])
        is_as_extreme = np.abs(permuted) >= np.abs(observed) - TIE
        as_extreme += is_as_extreme.sum(axis=0)
    added = 0 if exact else 1  # the observed order
    p = (as_extreme + added) / (len(orders) + added)
    p_or_nan = np.where(np.isnan(observed), np.nan, p)
    return observed, p_or_nan


def interval(value: float, n: int, confidence: float, ranks: bool) -> tuple[float, float]:
    """Confidence interval of a correlation over n independent points; NaN if it is undefined.

    It uses Fisher's z; for Spearman's correlation (`ranks`), z has the variance of Bonett & Wright
    2000. With few points the interval is wide, as it should be; a bootstrap interval would be too
    narrow.
    """
    is_defined = n > FEWEST and abs(value) < 1 - TIE
    if not is_defined:
        return np.nan, np.nan
    z = np.arctanh(value)
    numerator = 1 + value**2 / 2 if ranks else 1
    variance = numerator / (n - 3)
    half_width = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    return float(np.tanh(z - half_width)), float(np.tanh(z + half_width))


def to_targets(
    distances: pd.DataFrame,
    targets: Sequence[str],
    ood_datasets: Sequence[str],
    in_distribution: str | None,
) -> dict[str, float]:
    """Distance of each target to the in-distribution dataset, such as {"noto": 0.7}.

    Without an in-distribution dataset: the mean distance to the other OOD datasets.

    Args:
        distances: columns first, second, value, for one model and one kind of distance; one row
            per pair of datasets, in either order.
    """
    datasets = [in_distribution] if in_distribution else ood_datasets
    matrix = matrix_of(distances)
    distance_of_targets = {}
    for target in targets:
        other_datasets = [dataset for dataset in datasets if dataset != target]
        distances_of_target = matrix.loc[target, other_datasets].to_numpy()
        distance_of_targets[target] = float(distances_of_target.mean())
    return distance_of_targets


def matrix_of(distances: pd.DataFrame) -> pd.DataFrame:
    """Symmetric matrix of distances between datasets, NaN on the diagonal.

    Args:
        distances: columns first, second, value, with one row per pair of datasets.
    """
    turned = distances.rename(columns={"first": "second", "second": "first"})
    return pd.concat([distances, turned]).pivot(index="first", columns="second", values="value")


@dataclass(frozen=True)
class Datasets:
    """Datasets whose distances are compared with effects of fine-tuning."""

    targets: Sequence[str]
    ood_datasets: Sequence[str]
    in_distribution: str | None

    @property
    def only_evaluated(self) -> list[str]:
        """OOD datasets that are not targets, which are permuted among themselves."""
        return [dataset for dataset in self.ood_datasets if dataset not in self.targets]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each target with each other OOD dataset: [("noto", "twemoji"), ("twemoji", "noto")]."""
        return [
            (target, dataset)
            for target in self.targets
            for dataset in self.ood_datasets
            if dataset != target
        ]


@dataclass(frozen=True)
class PermutationTest:
    """Distances that may predict effects of fine-tuning, and how a test permutes them."""

    predictors: PermutedPredictors  # the distances after each permutation of the datasets
    group_sizes: tuple[int, ...]  # datasets are permuted within these
    independent: bool  # whether points are independent, as an interval needs

    def correlate(
        self, responses: np.ndarray, confidence: float, seed: int
    ) -> list[dict[str, Any]]:
        """Correlations of the distances with the effects of fine-tuning.

        Args:
            responses: effects of fine-tuning, (runs, n), such as RI of n targets for each method.

        Returns:
            One row per statistic and run: run (its row in `responses`), statistic, value, ci_low,
            ci_high, p, permutations, exact, n. Values are NaN with fewer than three points.
        """
        runs, n = responses.shape
        has_enough_points = n >= FEWEST
        orders = np.empty((0, sum(self.group_sizes)), np.int64)
        exact = True
        if has_enough_points:
            orders, exact = permutations(*self.group_sizes, seed=seed)
        rows = []
        for statistic in STATISTICS:
            ranks = statistic == SPEARMAN
            values = np.full(runs, np.nan)
            p_values = np.full(runs, np.nan)
            if has_enough_points:
                values, p_values = permuted_p(self.predictors, responses, orders, exact, ranks)
            for run in range(runs):
                low = np.nan
                high = np.nan
                if self.independent:
                    low, high = interval(values[run], n, confidence, ranks)
                row = {
                    "run": run,
                    "statistic": statistic,
                    "value": values[run],
                    "ci_low": low,
                    "ci_high": high,
                    "p": p_values[run],
                    "permutations": len(orders),
                    "exact": exact,
                    "n": n,
                }
                rows.append(row)
        return rows


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
    """Correlations of distances with changes of accuracy, at each level (such as `pairs`).

    Args:
        distances: model, first and second (datasets), distance (its kind, such as ncd), value; one
            row per model, pair of datasets and kind.
        accuracy: model, method, target, size, seed, dataset, accuracy (percent).
        ri: model, method, target, size, seed, ri (mean change of accuracy, percentage points).
        in_distribution: dataset to which distances of targets are measured, if any.
        pairs: whether to compare pairs of datasets; not if RI excludes images that the pairs'
            accuracies include.

    Returns:
        One row per model, method, size, distance, level and statistic: value with its confidence
        interval, two-sided p, number of permutations, exact (whether these are all), and n points.
        The value is NaN if there are fewer than three points or all are equal.
    """
    datasets = Datasets(targets, ood_datasets, in_distribution)
    levels = ["targets"]
    if pairs:
        levels.insert(0, "pairs")
    if in_distribution in set(accuracy["dataset"]):
        levels.append("in_distribution")

    rows = []
    for model, distances_of_model in distances.groupby("model", sort=False):
        ri_of_model = ri[ri["model"] == model]
        runs = [
            (run["method"], run["size"])
            for run in ri_of_model[METHOD_AND_SIZE].drop_duplicates().to_dict("records")
        ]
        if not runs:
            continue
        ri_of_targets = ri_of_model.groupby([*METHOD_AND_SIZE, "target"], sort=False)["ri"]
        mean_ri = ri_of_targets.mean()  # over seeds
        changes = _changes_of_accuracy(accuracy[accuracy["model"] == model])
        effects = {level: _effects(level, runs, changes, mean_ri, datasets) for level in levels}
        for kind, distances_of_kind in distances_of_model.groupby("distance", sort=False):
            for level in levels:
                test = _permutation_test(level, distances_of_kind, datasets)
                for correlation in test.correlate(effects[level], confidence, seed):
                    method, size = runs[correlation["run"]]
                    run_columns = {"model": model, "method": method, "size": size}
                    rows.append({**run_columns, "distance": kind, "level": level, **correlation})
        log.info("%s: distances compared with the effects of %d methods", model, len(runs))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values(["model", *METHOD_AND_SIZE], kind="stable", key=_order_of_appearance)


def _order_of_appearance(column: pd.Series) -> np.ndarray:
    """b, a, b gives 0, 1, 0: sorting by these numbers keeps models in their original order."""
    numbers, _ = pd.factorize(column)
    return numbers


def _changes_of_accuracy(accuracy: pd.DataFrame) -> dict[tuple[str, str, str, str], float]:
    """Percentage points, means over seeds: {("ft", "all", "noto", "emoji"): -2.5}.

    Keys are method, size, target and dataset; `accuracy` has the rows of one model.
    """
    is_pretrained = accuracy["method"] == PRETRAINED
    before = accuracy[is_pretrained].set_index("dataset")["accuracy"]
    runs = accuracy[~is_pretrained].groupby([*METHOD_AND_SIZE, "target", "dataset"])
    after = runs["accuracy"].mean().reset_index()
    changes = {}
    for row in after.to_dict("records"):
        dataset = row["dataset"]
        change = row["accuracy"] - before[dataset]
        changes[row["method"], row["size"], row["target"], dataset] = change
    return changes


def _effects(
    level: str,
    runs: Sequence[tuple[str, str]],
    changes: Mapping[tuple[str, str, str, str], float],
    mean_ri: pd.Series,
    datasets: Datasets,
) -> np.ndarray:
    """Effects of fine-tuning in percentage points, (runs, n).

    Args:
        level: `targets`: RI of each of n targets; `pairs`: change of accuracy on a dataset after
            fine-tuning on a target, for n pairs; `in_distribution`: change of accuracy on that
            dataset after fine-tuning on each of n targets.
        runs: methods with a training subset, such as [("ft", "all")].
        changes: change of accuracy by method, size, target and dataset, such as {("ft", "all",
            "noto", "emoji"): -2.5}.
        mean_ri: RI with the index method, size, target.
    """
    if level == "targets":
        ri_of_runs = []
        for method, size in runs:
            ri_of_runs.append([mean_ri[method, size, target] for target in datasets.targets])
        return np.array(ri_of_runs)
    if level == "pairs":
        pairs = datasets.pairs
    else:
        assert datasets.in_distribution is not None  # else there is no such level
        pairs = [(target, datasets.in_distribution) for target in datasets.targets]
    changes_of_runs = []
    for method, size in runs:
        changes_of_runs.append(
            [changes[method, size, target, dataset] for target, dataset in pairs]
        )
    return np.array(changes_of_runs)


def _permutation_test(level: str, distances: pd.DataFrame, datasets: Datasets) -> PermutationTest:
    """Mantel test for level `pairs`, where points share datasets; else targets are permuted.

    `distances` has one row per pair of datasets: first, second, value.
    """
    if level == "pairs":
        return PermutationTest(
            predictors=_distances_of_pairs(distances, datasets),
            group_sizes=(len(datasets.targets), len(datasets.only_evaluated)),
            independent=False,
        )
    distance_of_target = to_targets(
        distances, datasets.targets, datasets.ood_datasets, datasets.in_distribution
    )
    distances_of_targets = np.array(list(distance_of_target.values()))

    def permuted_distances(orders: np.ndarray) -> np.ndarray:
        """(b, targets) distances, from permutations (b, targets) of the targets."""
        return distances_of_targets[orders]

    return PermutationTest(
        predictors=permuted_distances, group_sizes=(len(datasets.targets),), independent=True
    )


def _distances_of_pairs(distances: pd.DataFrame, datasets: Datasets) -> PermutedPredictors:
    """Function from permutations of datasets (b, datasets) to distances of pairs (b, pairs)."""
    names = [*datasets.targets, *datasets.only_evaluated]
    matrix = matrix_of(distances).loc[names, names].to_numpy()
    target_numbers = [names.index(target) for target, _ in datasets.pairs]
    dataset_numbers = [names.index(dataset) for _, dataset in datasets.pairs]

    def permuted_distances(orders: np.ndarray) -> np.ndarray:
        """One permutation for rows and columns of the matrix (Mantel 1967)."""
        return matrix[orders[:, target_numbers], orders[:, dataset_numbers]]

    return permuted_distances


def all_distances(
    models: Sequence[str], features: Sequence[Path], compression: Sequence[Path]
) -> pd.DataFrame:
    """Distances of all models: columns model, first, second, distance, value, n, note.

    Args:
        features, compression: CSV file of distances in feature space and by compression, per model.
    """
    distances_of_models = {}
    for model, in_features, by_compression in zip(models, features, compression, strict=True):
        distances_of_models[model] = pd.concat(
            [pd.read_csv(in_features), pd.read_csv(by_compression)]
        )
    return pd.concat(distances_of_models, names=["model"]).reset_index("model")
