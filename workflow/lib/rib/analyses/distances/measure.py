"""Distances between datasets in a pretrained model's feature space.

All datasets contribute the same number of images, since the estimates depend on it. There are three
distances, in units of the features except for MMD:

    otdd     optimal transport between labelled sets
             (Alvarez-Melis & Fusi 2020, arXiv 2002.02923, section 4, p = 2)
    mmd2     unbiased squared maximum mean discrepancy (Gretton et al. 2012, Lemma 6); a negative
             value is noise
    frechet  between Gaussians fitted after one PCA for all datasets (Dowson & Landau 1982); FID is
             its square

OTDD and the Frechet distance are biased upwards in small samples, even for two samples of one
distribution. They rank pairs of datasets, but their values have no absolute meaning. The estimates
assume independent samples, although datasets of a family often show the same objects.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.data.stored_features import read_features
from rib.data.subsets import balanced_order

FEWEST = 5  # minimum images per class for a Gaussian in OTDD
SAMPLE_PER_DIMENSION = 5  # minimum images per dimension for a covariance
MEDIAN_OF = 4000  # images for MMD's bandwidth
LAYER = "pre_logits"  # the head's input


@dataclass(frozen=True)
class Sample:
    """Images of one dataset, as points of a feature space."""

    features: np.ndarray  # (n, d) float64
    labels: np.ndarray  # (n,) int64, indices of the dataset's own classes


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between the rows of (n, d) and (m, d): (n, m), never negative."""
    # Centring reduces rounding errors.
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2
    first = first - middle
    second = second - middle
    first_norms = (first**2).sum(axis=1)
    second_norms = (second**2).sum(axis=1)
    return np.maximum(first_norms[:, None] + second_norms - 2 * first @ second.T, 0)


def covariance_root(features: np.ndarray) -> np.ndarray:
    """Matrix R of at most d rows, where R'R is the unbiased covariance of (n, d).

    Distances need only R, which is small for few images. It is zero for a single image.
    """
    n, dimensions = features.shape
    if n < 2:
        return np.zeros((1, dimensions))
    scaled = (features - features.mean(axis=0)) / np.sqrt(n - 1)
    if n > dimensions:
        root: Any = np.linalg.qr(scaled, mode="r")  # an array; NumPy's types say Q and R
        return root
    return scaled


def gaussian_distances(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Squared 2-Wasserstein distances of Gaussians fitted to samples (n, d).

    For means m1, m2 and covariances A, B the distance is (Dowson & Landau 1982)

        |m1 - m2|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2

    Returns:
        (len(first), len(second)), at least 0.
    """
    # The matrices (d, d) are never computed. With A = R'R and B = S'S, the last trace is the sum of
    # the singular values of RS'. R and S have no more rows than their samples have images, so for
    # few images RS' is much smaller than (d, d). The trace of A is the sum of the squares in R.
    first_means = np.stack([sample.mean(axis=0) for sample in first])
    second_means = np.stack([sample.mean(axis=0) for sample in second])
    first_roots = [covariance_root(sample) for sample in first]
    second_roots = [covariance_root(sample) for sample in second]
    first_traces = np.array([(root**2).sum() for root in first_roots])
    second_traces = np.array([(root**2).sum() for root in second_roots])
    traces_of_product_roots = _traces_of_roots(first_roots, second_roots)
    covariance_terms = first_traces[:, None] + second_traces - 2 * traces_of_product_roots
    # Never negative, but rounding makes some negative for equal covariances.
    covariance_terms = np.maximum(covariance_terms, 0)
    return squared_distances(first_means, second_means) + covariance_terms


def _traces_of_roots(
    first_roots: Sequence[np.ndarray], second_roots: Sequence[np.ndarray]
) -> np.ndarray:
    """Sum of the singular values of RS' for each R in first and S in second, matrices (rows, d)."""
    # Zero rows don't change the singular values, and allow one batched call for each R.
    most_rows = max(len(root) for root in second_roots)
    padded_roots = []
    for root in second_roots:
        missing_rows = most_rows - len(root)
        padded_roots.append(np.pad(root, ((0, missing_rows), (0, 0))))
    dimensions = padded_roots[0].shape[1]
    stacked = np.stack(padded_roots).reshape(-1, dimensions).T  # (d, second roots * rows)
    traces = []
    for root in first_roots:
        products = (root @ stacked).reshape(len(root), -1, most_rows)
        products = products.transpose(1, 0, 2)  # (second roots, rows of R, rows of S)
        singular_values = np.linalg.svd(products, compute_uv=False)
        traces.append(singular_values.sum(axis=1))
    return np.stack(traces)


def otdd(first: Sample, second: Sample, gaussian: bool) -> float:
    """Optimal transport dataset distance between samples of equal size, in the features' units.

    Moving an image costs its squared distance plus the squared 2-Wasserstein distance between
    Gaussians fitted to the images of the two labels. The plan is exact: for samples of equal size
    an optimal plan is a matching. The distance is the square root of the mean cost.

    Args:
        gaussian: whether to fit Gaussians; if classes are too small for a covariance, use only the
            means of classes.

    Raises:
        ValueError: the samples differ in size.
    """
    if len(first.labels) != len(second.labels):
        raise ValueError("OTDD needs samples of equal size")
    first_classes, first_class_of_image = _features_by_class(first)
    second_classes, second_class_of_image = _features_by_class(second)
    if not gaussian:
        first_classes = [images.mean(axis=0, keepdims=True) for images in first_classes]
        second_classes = [images.mean(axis=0, keepdims=True) for images in second_classes]
    label_cost = gaussian_distances(first_classes, second_classes)
    label_cost_of_images = label_cost[np.ix_(first_class_of_image, second_class_of_image)]
    cost = squared_distances(first.features, second.features) + label_cost_of_images
    matching = linear_sum_assignment(cost)
    return float(np.sqrt(cost[matching].mean()))


def _features_by_class(sample: Sample) -> tuple[list[np.ndarray], np.ndarray]:
    """Features (images of the class, d) of each class, and for each image an index into these."""
    labels, class_of_image = np.unique(sample.labels, return_inverse=True)
    features = [sample.features[class_of_image == i] for i in range(len(labels))]
    return features, class_of_image


def median_distance(samples: Sequence[np.ndarray]) -> float:
    """Median distance between the images of all samples (n, d): the bandwidth of MMD's kernel.

    Source: Gretton et al. 2012, section 8; only the first images of large samples are used.
    """
    images_per_sample = max(2, MEDIAN_OF // len(samples))
    pooled = np.concatenate([sample[:images_per_sample] for sample in samples])
    pairs = np.triu_indices(len(pooled), 1)
    squared = squared_distances(pooled, pooled)[pairs]
    return float(np.sqrt(np.median(squared)))


def mmd2(first: np.ndarray, second: np.ndarray, bandwidth: float) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy between samples (n, d) and (m, d).

    The kernel is exp(-|x - y|^2 / (2 bandwidth^2)). The estimate can be negative, since its mean is
    0 for equal distributions.

    Source: Gretton et al. 2012, Lemma 6.
    """
    within_first = _mean_off_diagonal(_gaussian_kernel(first, first, bandwidth))
    within_second = _mean_off_diagonal(_gaussian_kernel(second, second, bandwidth))
    between = _gaussian_kernel(first, second, bandwidth).mean()
    return float(within_first + within_second - 2 * between)


def _gaussian_kernel(first: np.ndarray, second: np.ndarray, bandwidth: float) -> np.ndarray:
    """exp(-|x - y|^2 / (2 bandwidth^2)) for each pair of rows: (n, m)."""
    return np.exp(squared_distances(first, second) / (-2 * bandwidth**2))


def _mean_off_diagonal(kernel: np.ndarray) -> float:
    """Leaves out pairs of an image with itself, which would bias the estimate."""
    n = len(kernel)
    return (kernel.sum() - np.trace(kernel)) / (n * (n - 1))


def principal_axes(samples: Sequence[np.ndarray], axes: int) -> tuple[np.ndarray, float]:
    """Principal axes of pooled samples (n, d) of equal size.

    Args:
        axes: number of axes, at most d.

    Returns:
        (d, axes), and their fraction of the variance, 0 to 1.
    """
    pooled = np.concatenate(samples)
    dimensions = pooled.shape[1]
    # `cov` returns a number if there is one dimension.
    covariance = np.cov(pooled.T).reshape(dimensions, -1)
    ascending_variances, ascending_vectors = np.linalg.eigh(covariance)
    largest_variances = ascending_variances[::-1][:axes]
    explained = largest_variances.sum() / ascending_variances.sum()
    largest_vectors = ascending_vectors[:, ::-1][:, :axes]
    return largest_vectors, float(explained)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to (n, k) and (m, k)."""
    return float(np.sqrt(gaussian_distances([first], [second])[0, 0]))


def distance_table(samples: Mapping[str, Sample]) -> pd.DataFrame:
    """OTDD, MMD and Frechet distance of all pairs of datasets.

    Columns: first, second, distance (otdd, mmd2 or frechet), value, n (images of each), note.

    Args:
        samples: by dataset, of equal size n, at least 6; the first images must be representative,
            since only they set the bandwidth of MMD.
    """
    (n,) = {len(sample.labels) for sample in samples.values()}
    most_classes = max(len(np.unique(sample.labels)) for sample in samples.values())
    gaussian = n >= FEWEST * most_classes
    label_note = f"labels as points: fewer than {FEWEST} images per class in some sets"
    if gaussian:
        label_note = "labels as Gaussians"

    features = [sample.features for sample in samples.values()]
    bandwidth = median_distance(features)
    bandwidth_note = f"bandwidth {bandwidth:.4g}"
    dimensions = features[0].shape[1]
    number_of_axes = min(dimensions, (n - 1) // SAMPLE_PER_DIMENSION)
    axes, explained = principal_axes(features, number_of_axes)
    axes_note = f"{axes.shape[1]} principal components, {explained:.1%} of the variance"

    pairs = list(itertools.combinations(samples, 2))
    rows = []
    for first_name, second_name in Progress(pairs, desc="distances", unit="pair"):
        first = samples[first_name]
        second = samples[second_name]
        transport = otdd(first, second, gaussian)
        discrepancy = mmd2(first.features, second.features, bandwidth)
        between_gaussians = frechet(first.features @ axes, second.features @ axes)
        rows += [
            (first_name, second_name, "otdd", transport, n, label_note),
            (first_name, second_name, "mmd2", discrepancy, n, bandwidth_note),
            (first_name, second_name, "frechet", between_gaussians, n, axes_note),
        ]
    return pd.DataFrame(rows, columns=["first", "second", "distance", "value", "n", "note"])


def equal_samples(features: Mapping[str, Path]) -> dict[str, Sample]:
    """Samples of all datasets, as large as the smallest dataset.

    Args:
        features: file of features by dataset, such as {"noto": Path("noto.safetensors")}.

    Raises:
        UserError: the smallest dataset has too few images.
    """
    features_of_dataset = {}  # (n, d)
    images_of_dataset = {}  # labels and objects
    for name, path in features.items():
        features_of_images, images = read_features(path, LAYER)
        features_of_dataset[name] = features_of_images
        images_of_dataset[name] = images
    sizes = {name: len(of_images) for name, of_images in features_of_dataset.items()}
    smallest = min(sizes, key=sizes.__getitem__)
    n = sizes[smallest]
    if n <= SAMPLE_PER_DIMENSION:
        raise UserError(
            f"distances: {smallest} has only {n} images, which limits the sample of every dataset; "
            f"choose datasets of more than {SAMPLE_PER_DIMENSION} images, or raise "
            "representations.images."
        )
    samples = {}
    for name, images in images_of_dataset.items():
        # The first images in class-balanced order.
        chosen = balanced_order(images, first=n)
        samples[name] = Sample(
            features=features_of_dataset[name][chosen].astype(np.float64),
            labels=images.labels[chosen],
        )
    return samples


def distances_of(datasets: Sequence[str], features: Sequence[Path]) -> pd.DataFrame:
    """Distances of all pairs of datasets for a pretrained model, columns as in `distance_table`.

    Args:
        features: file of the model's features of each dataset, in the order of the datasets.
    """
    features_of_datasets = dict(zip(datasets, features, strict=True))
    return distance_table(equal_samples(features_of_datasets))
