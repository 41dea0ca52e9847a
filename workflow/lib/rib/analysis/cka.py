"""Similarity of two runs' representations of the same images: debiased linear CKA with jackknife confidence intervals.

CKA (Kornblith et al. 2019, arXiv 1905.00414, section 3) of features X (n, p) and Y (n, q) of the same n images, with
K = X X^T and L = Y Y^T, is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)): 1 for features that are equal up to rotation,
scale and shift, 0 for unrelated ones. The plain estimator of HSIC is biased: with n below p and q, CKA of unrelated
features is near 1 (Murphy et al. 2024, arXiv 2405.01012). We use the unbiased estimator of Song et al. 2012 (JMLR 13,
equation 5), as in Nguyen et al. 2020 (arXiv 2010.15327, section 2). It is an inner product of U-centred kernels
(Szekely and Rizzo 2014, arXiv 1310.2926), so CKA is within -1..1.

The jackknife leaves out one object at a time. A bootstrap would draw images twice, and identical images increase CKA.
The jackknife is applied to artanh(CKA), as is usual for correlations, so the upper limits are below 1.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.config.run import PRETRAINED, RUN_COLUMNS, Run, by_run

PRE_LOGITS = "pre_logits"
DEPTHS = {
    "stage1": 1,
    "stage2": 2,
    "stage3": 3,
    "stage4": 4,
    PRE_LOGITS: 5,
}  # see rib.models.layers
OTHERS = "others"  # dataset column of the mean over all datasets other than the target
FEWEST = 4  # minimum number of images for the unbiased estimator
CLOSEST = 1 - 1e-12  # upper limit, since artanh(1) is infinite


@dataclass(frozen=True)
class Kernel:
    """Linear kernel of features, with the sums needed to leave out groups of images."""

    values: np.ndarray  # (n, n), with a zero diagonal
    groups: np.ndarray  # (n,) int64, the group of each image, 0 to g - 1
    sums: np.ndarray  # (n,) row sums
    to_groups: np.ndarray  # (n, g) sums of each row over the images of each group

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray, dataset: str) -> "Kernel":
        """Kernel of features (n, d), in double precision; a UserError if too few images are left without a group."""
        n = len(features)
        if n - np.bincount(groups).max() < FEWEST:
            raise UserError(
                f"{dataset}: CKA needs at least {FEWEST} images, and one object more; it has {n}."
            )
        centred = features.astype(np.float64)
        centred -= centred.mean(axis=0)  # only reduces rounding errors
        values = centred @ centred.T
        np.fill_diagonal(values, 0)
        return cls(values, groups, values.sum(axis=1), _group_sums(values.T, groups).T)


def _group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum rows by group: (n, ...) to (g, ...)."""
    order = np.argsort(groups, kind="stable")
    return np.add.reduceat(
        values[order], np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0]), axis=0
    )


def hsic(one: Kernel, other: Kernel) -> np.ndarray:
    """Unbiased HSIC on all images, then with each group left out: (1 + g,).

    Source: Song et al. 2012, equation 5; sums without a group are total sums minus the group's rows and columns.
    """
    groups, n = one.groups, len(one.groups)
    products = one.values * other.values
    within_products, within_one, within_other = (
        _within(part, groups)
        for part in (_group_sums(products.T, groups).T, one.to_groups, other.to_groups)
    )
    trace = _without(products.sum(axis=1), within_products, groups)
    sum_one, sum_other = (
        _without(one.sums, within_one, groups),
        _without(other.sums, within_other, groups),
    )
    # 1^T K L 1 without a group: sum over the remaining images of the products of their sums over the remaining images.
    left = (one.sums[:, None] - one.to_groups) * (other.sums[:, None] - other.to_groups)
    cross = np.r_[one.sums @ other.sums, left.sum(axis=0) - _within(left, groups)]
    left_n = np.r_[n, n - np.bincount(groups)].astype(np.float64)
    found = trace + sum_one * sum_other / ((left_n - 1) * (left_n - 2)) - 2 * cross / (left_n - 2)
    return found / (left_n * (left_n - 3))


def _within(to_groups: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum over each group's images of their values for that group: (n, g) to (g,)."""
    return np.bincount(groups, weights=to_groups[np.arange(len(groups)), groups])


def _without(sums: np.ndarray, within: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum of a symmetric matrix, in full and without each group, from the sums of its rows and of the groups' blocks."""
    return sums.sum() - np.r_[0, 2 * np.bincount(groups, weights=sums) - within]


def cka(one: Kernel, other: Kernel, own: np.ndarray | None = None) -> np.ndarray:
    """Debiased linear CKA on all images, then with each group left out: (1 + g,); NaN for constant features."""
    scale = (hsic(one, one) if own is None else own) * hsic(
        other, other
    )  # `own` may be known already
    return hsic(one, other) / np.sqrt(np.where(scale > 0, scale, np.nan))


def plain_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear CKA of (n, p) and (n, q) with the biased estimator, 0..1 (Kornblith et al. 2019, section 3, table 1)."""
    one, other = (
        part - part.mean(axis=0) for part in (one.astype(np.float64), other.astype(np.float64))
    )
    kernels = [part @ part.T for part in (one, other)]
    scale = np.prod([np.linalg.norm(kernel) for kernel in kernels])
    return float(np.sum(kernels[0] * kernels[1]) / scale) if scale else float("nan")


def jackknife_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Jackknife confidence interval of CKA from (1 + g,) values: on all images, then without each group.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 11.2 (standard error), on the artanh
    scale.
    """
    whole, *left = np.arctanh(np.clip(values, -CLOSEST, CLOSEST))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt((len(left) - 1) * np.var(left))
    return float(np.tanh(whole - half)), float(np.tanh(whole + half))


def mean_over(parts: Sequence[tuple[np.ndarray, Sequence[str]]]) -> np.ndarray:
    """Mean CKA over datasets, in full and without each object: (1 + objects,).

    An object is left out of all datasets at once; the CKA of a dataset without the object doesn't change.
    `parts` has the values (1 + g,) and the names of the g objects of each dataset.
    """
    objects = sorted(set().union(*(names for _, names in parts)))
    left = [
        pd.Series(values[1:], names).reindex(objects, fill_value=values[0]).to_numpy()
        for values, names in parts
    ]
    return np.r_[np.mean([values[0] for values, _ in parts]), np.mean(left, axis=0)]


def cka_table(
    *, features: Iterable[Path], ood_datasets: Collection[str], confidence: float
) -> pd.DataFrame:
    """The CKA of every fine-tuned run with its pretrained model, per dataset and layer.

    Args:
        features: outputs of the features jobs, <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors, of
            fine-tuned runs and pretrained models, on the same datasets.
        ood_datasets: datasets that `others` averages over, except the target.

    Returns:
        model, method, target, size, seed, dataset, layer, depth (1 is nearest to the input), n, cka, ci_low, ci_high,
        biased (the plain estimator, for comparison with published numbers).

    Raises:
        UserError: there is no fine-tuned run, or too few images.
    """
    names = {layer: {"layer": layer, "depth": depth} for layer, depth in DEPTHS.items()}
    return _table(features, names, None, ood_datasets, confidence)


def epoch_table(
    *,
    before: Iterable[Path],
    after: Iterable[Path],
    snapshots: int,
    ood_datasets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """The CKA of the head's input with that of the pretrained model, at several times in training.

    Args:
        before: features of the pretrained models, as for `cka_table`.
        after: outputs of the epochs jobs, with the same paths: features by snapshot.
        snapshots: number of snapshots, at equal distances in training.

    Returns:
        As `cka_table`, but with trained (percent of the steps) instead of layer and depth.

    Raises:
        UserError: there is no fine-tuned run, too few images, or no `pre_logits` among the pretrained features.
    """
    names = {
        f"snapshot{number}": {"trained": 100 * number / snapshots}
        for number in range(1, snapshots + 1)
    }
    return _table([*before, *after], names, PRE_LOGITS, ood_datasets, confidence)


def _table(
    features: Iterable[Path],
    names: Mapping,
    against: str | None,
    ood_datasets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """Compare runs with their pretrained models: one row per run, name and dataset.

    Args:
        names: names of the features in the runs' files, in order, each with further columns of its rows.
        against: see `compare`.
    """
    runs = by_run(features)
    tuned = {run: paths for run, paths in runs.items() if run.method != PRETRAINED}
    if not tuned:
        raise UserError(
            "representations: no fine-tuned run is chosen; choose methods and targets in config.yaml."
        )
    found: dict[tuple, dict[str, tuple]] = {}
    cells = [(run.model, *part) for run in runs if run not in tuned for part in runs[run].items()]
    for model, dataset, path in Progress(cells, desc="CKA", unit="dataset"):
        after = {
            run: paths[dataset]
            for run, paths in tuned.items()
            if run.model == model and dataset in paths
        }
        for key, value in compare(path, after, against):
            found.setdefault(key, {})[dataset] = value
    lines = [
        (*run.values(RUN_COLUMNS), dataset, *names[name].values(), *rest)
        for run, name in itertools.product(tuned, names)
        for dataset, *rest in _lines(
            run.target, found.get((run, name), {}), ood_datasets, confidence
        )
    ]
    further = next(iter(names.values()))
    return pd.DataFrame(
        lines,
        columns=[*RUN_COLUMNS, "dataset", *further, "n", "cka", "ci_low", "ci_high", "biased"],
    )


def compare(before: Path, after: Mapping[Run, Path], against: str | None) -> Iterator[tuple]:
    """CKA of several runs' features with those of the pretrained model, on one dataset.

    Args:
        against: layer of the pretrained model with which all features are compared; None compares equal layers.

    Yields:
        (run, name of the features), and their CKA in full and without each object (1 + g,), the objects' names, the
        plain CKA, and n.

    Raises:
        UserError: the features are of different or too few images, or the layer is missing.
    """
    index, first = _index(before), load_file(before)
    names, groups = np.unique(index["object_id"].astype(str), return_inverse=True)
    if against is not None and against not in first:
        raise UserError(
            f"config, representations.layers: '{against}' is needed for comparison; add it to the list."
        )
    kernels = {layer: Kernel.of(part, groups, before.stem) for layer, part in first.items()}
    own = {layer: hsic(kernel, kernel) for layer, kernel in kernels.items()}
    for run, path in after.items():
        if not _index(path).equals(index):
            raise UserError(
                f"{path} and {before} are of different images; delete both and run again."
            )
        for name, part in load_file(path).items():
            layer = against or name
            values = cka(kernels[layer], Kernel.of(part, groups, before.stem), own[layer])
            yield (run, name), (values, names, plain_cka(first[layer], part), len(index))


def _index(features: Path) -> pd.DataFrame:
    return pd.read_parquet(
        features.with_suffix(".index.parquet"), columns=["image_id", "object_id"]
    )


def _lines(
    target: str, own: Mapping[str, tuple], ood_datasets: Collection[str], confidence: float
) -> list[tuple]:
    """Dataset, n, CKA with its confidence interval, and plain CKA, of each dataset and of the mean over the others."""
    if others := [
        part for dataset, part in own.items() if dataset in ood_datasets and dataset != target
    ]:
        values, names, plain, n = zip(*others, strict=True)
        own = {
            **own,
            OTHERS: (
                mean_over(list(zip(values, names, strict=True))),
                None,
                np.mean(plain),
                sum(n),
            ),
        }
    return [
        (dataset, n, values[0], *jackknife_interval(values, confidence), plain)
        for dataset, (values, _, plain, n) in own.items()
    ]
