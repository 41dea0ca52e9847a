"""Distances between datasets in a pretrained model's feature space.

All datasets contribute the same number of images, since the estimates depend on it. There are three distances, in units
of the features except for MMD:

    otdd     optimal transport between labelled sets (Alvarez-Melis & Fusi 2020, arXiv 2002.02923, section 4, p = 2)
    mmd2     unbiased squared maximum mean discrepancy (Gretton et al. 2012, Lemma 6); a negative value is noise
    frechet  between Gaussians fitted after one PCA for all datasets (Dowson & Landau 1982); FID is the square of this

OTDD and the Frechet distance are biased upwards in small samples, also for two samples of one distribution. They rank
pairs of datasets, but their values have no absolute meaning. The estimates assume independent samples, although
datasets of a family often show the same objects.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.data.stored_features import read_features
from rib.data.subsets import balanced_order

FEWEST = 5  # minimum images per class for a Gaussian in OTDD
SAMPLE_PER_DIMENSION = 5  # minimum images per dimension for a covariance
MEDIAN_OF = 4000  # images used for MMD's bandwidth
LAYER = "pre_logits"  # the head's input


@dataclass(frozen=True)
class Sample:
    """Images of one dataset in a feature space."""

    features: np.ndarray  # (n, d) float64
    labels: np.ndarray  # (n,) int64, indices of the dataset's own classes


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between the rows of (n, d) and (m, d): (n, m), never negative."""
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2  # centring reduces rounding errors
    first, second = first - middle, second - middle
    return np.maximum(
        (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T, 0
    )


def covariance_root(features: np.ndarray) -> np.ndarray:
    """Matrix R of at most d rows, where R'R is the unbiased covariance of (n, d); zeros for a single image."""
    if len(features) < 2:
        return np.zeros((1, features.shape[1]))
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(features) > features.shape[1] else centred


def gaussian_distances(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Squared 2-Wasserstein distances (len(first), len(second)), at least 0, of Gaussians fitted to samples (n, d).

    The distance is |m1 - m2|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) (Dowson & Landau 1982). With A = R'R and B = S'S,
    the trace of the root is the sum of the singular values of RS', which is no larger than the samples.
    """
    means = [np.stack([part.mean(axis=0) for part in parts]) for parts in (first, second)]
    roots = [[covariance_root(part) for part in parts] for parts in (first, second)]
    traces = [np.array([(root**2).sum() for root in found]) for found in roots]
    rows = max(len(root) for root in roots[1])
    # Zero rows don't change the singular values, and allow one batched call.
    padded = np.stack([np.pad(root, ((0, rows - len(root)), (0, 0))) for root in roots[1]])
    flat = padded.reshape(-1, padded.shape[2]).T
    products = ((root @ flat).reshape(len(root), -1, rows).transpose(1, 0, 2) for root in roots[0])
    shared = [np.linalg.svd(product, compute_uv=False).sum(axis=1) for product in products]
    spread = traces[0][:, None] + traces[1] - 2 * np.stack(shared)
    return squared_distances(*means) + np.maximum(spread, 0)


def otdd(first: Sample, second: Sample, gaussian: bool) -> float:
    """Optimal transport dataset distance between samples of equal size; a ValueError if the samples differ in size.

    The cost of moving an image is its squared distance plus the squared 2-Wasserstein distance between Gaussians fitted
    to the images of the two labels. The plan is exact: for samples of equal size an optimal plan is a matching. The
    result is the square root of the mean cost, in the features' units. Without `gaussian`, for classes too small for a
    covariance, only their means are used.
    """
    if len(first.labels) != len(second.labels):
        raise ValueError("OTDD needs samples of equal size")
    pair = (first, second)
    places = [np.unique(sample.labels, return_inverse=True)[1] for sample in pair]
    classes = [
        [one.features[own == i] for i in range(own.max() + 1)]
        for one, own in zip(pair, places, strict=True)
    ]
    if not gaussian:
        classes = [[part.mean(axis=0, keepdims=True) for part in parts] for parts in classes]
    cost = (
        squared_distances(first.features, second.features)
        + gaussian_distances(*classes)[np.ix_(*places)]
    )
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def median_distance(samples: Sequence[np.ndarray]) -> float:
    """Median distance between the images of all samples (n, d): the bandwidth of MMD's kernel.

    Source: Gretton et al. 2012, section 8; only the first images of large samples are used.
    """
    pooled = np.concatenate([part[: max(2, MEDIAN_OF // len(samples))] for part in samples])
    return float(
        np.sqrt(np.median(squared_distances(pooled, pooled)[np.triu_indices(len(pooled), 1)]))
    )


def mmd2(first: np.ndarray, second: np.ndarray, bandwidth: float) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy between the distributions of (n, d) and (m, d).

    The kernel is exp(-|x - y|^2 / (2 bandwidth^2)). The estimate can be negative, since its mean is 0 for equal
    distributions.

    Source: Gretton et al. 2012, Lemma 6.
    """
    pairs = ((first, first), (second, second), (first, second))
    *within, between = (np.exp(squared_distances(x, y) / (-2 * bandwidth**2)) for x, y in pairs)
    means = (
        (values.sum() - np.trace(values)) / (len(values) * (len(values) - 1)) for values in within
    )
    return float(sum(means) - 2 * between.mean())


def principal_axes(samples: Sequence[np.ndarray], axes: int) -> tuple[np.ndarray, float]:
    """Principal axes of pooled samples (n, d) of equal size: (d, axes), and their fraction of the variance, 0 to 1."""
    pooled = np.concatenate(samples)
    variances, vectors = np.linalg.eigh(np.cov(pooled.T).reshape(pooled.shape[1], -1))
    return vectors[:, ::-1][:, :axes], float(variances[::-1][:axes].sum() / variances.sum())


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to (n, k) and (m, k)."""
    return float(np.sqrt(gaussian_distances([first], [second])[0, 0]))


def distance_table(samples: Mapping[str, Sample]) -> pd.DataFrame:
    """Distances of all pairs of datasets: first, second, distance, value, n (images of each), note.

    Args:
        samples: by dataset, of equal size n, at least 6; the first images must be representative.
    """
    (n,) = {len(sample.labels) for sample in samples.values()}
    features = [sample.features for sample in samples.values()]
    gaussian = all(n >= FEWEST * len(np.unique(sample.labels)) for sample in samples.values())
    points = f"labels as points: fewer than {FEWEST} images per class in some sets"
    labels = "labels as Gaussians" if gaussian else points
    bandwidth = median_distance(features)
    axes, explained = principal_axes(
        features, min(features[0].shape[1], (n - 1) // SAMPLE_PER_DIMENSION)
    )
    fitted = f"{axes.shape[1]} principal components, {explained:.1%} of the variance"
    lines = []
    for pair in Progress(list(itertools.combinations(samples, 2)), desc="distances", unit="pair"):
        first, second = (samples[name] for name in pair)
        lines += [
            (*pair, "otdd", otdd(first, second, gaussian), n, labels),
            (
                *pair,
                "mmd2",
                mmd2(first.features, second.features, bandwidth),
                n,
                f"bandwidth {bandwidth:.4g}",
            ),
            (*pair, "frechet", frechet(first.features @ axes, second.features @ axes), n, fitted),
        ]
    return pd.DataFrame(lines, columns=["first", "second", "distance", "value", "n", "note"])


def equal_samples(features: Mapping[str, Path]) -> dict[str, Sample]:
    """Samples of the smallest dataset's size from all datasets: the first images in the class-balanced order.

    Raises:
        UserError: the smallest dataset has too few images.
    """
    stored = {name: read_features(path, LAYER) for name, path in features.items()}
    smallest = min(stored, key=lambda name: len(stored[name][0]))
    n = len(stored[smallest][0])
    if n <= SAMPLE_PER_DIMENSION:
        raise UserError(
            f"distances: {smallest} has only {n} images, which limits the sample of every dataset; choose datasets of "
            f"more than {SAMPLE_PER_DIMENSION} images, or raise representations.images."
        )
    samples = {}
    for name, (values, dataset) in stored.items():
        order = balanced_order(dataset)[:n]
        samples[name] = Sample(values[order].astype(np.float64), dataset.labels[order])
    return samples


def distances_of(*, datasets: Sequence[str], features: Sequence[Path]) -> pd.DataFrame:
    """`distance_table` of one model, from its features of each dataset before fine-tuning."""
    return distance_table(equal_samples(dict(zip(datasets, features, strict=True))))
