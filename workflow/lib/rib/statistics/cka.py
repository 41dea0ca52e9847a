"""Similarity of the representations of two runs on the same images: debiased linear CKA.

CKA (Kornblith et al. 2019, arXiv 1905.00414, section 3) of features X (n, p) and Y (n, q) of the
same n images, with K = X X^T and L = Y Y^T, is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)): 1 for
features that are equal up to rotation, scale and shift, 0 for unrelated ones. The plain estimator
of HSIC is biased: with n below p and q, CKA of unrelated features is near 1 (Murphy et al. 2024,
arXiv 2405.01012). We use the unbiased estimator of Song et al. 2012 (JMLR 13, equation 5), as in
Nguyen et al. 2020 (arXiv 2010.15327, section 2). It is an inner product of U-centred kernels
(Szekely and Rizzo 2014, arXiv 1310.2926), so CKA is within -1..1.

Confidence intervals come from the jackknife, which leaves out all images of one object at a time. A
bootstrap would draw images twice, and identical images increase CKA. The jackknife is applied to
artanh(CKA), as is usual for correlations, so upper limits are below 1.

Arrays (1 + g,) start with the value on all images; the others are without one of the g objects.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.schema.layout import by_run
from rib.schema.run import PRETRAINED, RUN_COLUMNS, Run

PRE_LOGITS = "pre_logits"  # the head's input
OTHERS = "others"  # in column dataset: mean over all datasets except the target
FEWEST = 4  # minimum number of images for the unbiased estimator
CLOSEST = 1 - 1e-12  # upper limit, since artanh(1) is infinite
NUMBER_COLUMNS = ["n", "cka", "ci_low", "ci_high", "biased"]


@dataclass(frozen=True)
class Kernel:
    """Linear kernel of features, with sums to leave out groups of images (of one object each)."""

    values: np.ndarray  # (n, n), with a zero diagonal
    groups: np.ndarray  # (n,) int64, the group of each image, 0 to g - 1
    sums: np.ndarray  # (n,) row sums
    to_groups: np.ndarray  # (n, g) sums of each row over the images of each group

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray, dataset: str) -> "Kernel":
        """Kernel of features (n, d), in double precision.

        Raises:
            UserError: too few images are left without the largest group.
        """
        n = len(features)
        largest_group = np.bincount(groups).max()
        if n - largest_group < FEWEST:
            raise UserError(
                f"{dataset}: CKA needs at least {FEWEST} images, and one object more; it has {n}."
            )
        centred = features.astype(np.float64)
        centred -= centred.mean(axis=0)  # only reduces rounding errors
        values = centred @ centred.T
        np.fill_diagonal(values, 0)
        return cls(
            values=values,
            groups=groups,
            sums=values.sum(axis=1),
            to_groups=_sums_to_groups(values, groups),
        )


def _sums_to_groups(matrix: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of (n, n) by group, (n, g): groups 0, 1, 0 give column 0 + column 2, and column 1."""
    order = np.argsort(groups, kind="stable")  # puts the images of a group side by side
    sorted_groups = groups[order]
    sorted_columns = matrix.T[order]
    is_first_of_group = np.r_[True, np.diff(sorted_groups) > 0]
    starts_of_groups = np.flatnonzero(is_first_of_group)
    sums_of_groups = np.add.reduceat(sorted_columns, starts_of_groups, axis=0)  # (g, n)
    return sums_of_groups.T


def hsic(first: Kernel, second: Kernel) -> np.ndarray:
    """Unbiased HSIC, which CKA normalises, of two kernels K and L of the same images: (1 + g,).

    The first value is over all n images, the others leave out the images of one group each.

    Source: Song et al. 2012, equation 5.
    """
    # Sums without a group are sums over all images minus the group's rows and columns.
    groups = first.groups
    n = len(groups)

    # tr(K L)
    products = first.values * second.values
    products_within = _within_groups(_sums_to_groups(products, groups), groups)
    trace = _total_and_without_groups(products.sum(axis=1), products_within, groups)

    # 1^T K 1 and 1^T L 1
    first_within = _within_groups(first.to_groups, groups)
    second_within = _within_groups(second.to_groups, groups)
    first_total = _total_and_without_groups(first.sums, first_within, groups)
    second_total = _total_and_without_groups(second.sums, second_within, groups)

    # 1^T K L 1: the sum over images of the product of their row sums. Without a group, both the
    # images and the row sums are over the remaining images.
    first_sums_without = first.sums[:, None] - first.to_groups
    second_sums_without = second.sums[:, None] - second.to_groups
    sum_products = first_sums_without * second_sums_without
    cross_without = sum_products.sum(axis=0) - _within_groups(sum_products, groups)
    cross = np.r_[first.sums @ second.sums, cross_without]

    # m, the number of images in each sum: all, or all outside the group.
    m = np.r_[n, n - np.bincount(groups)].astype(np.float64)
    product_of_totals = first_total * second_total / ((m - 1) * (m - 2))
    numerator = trace + product_of_totals - 2 * cross / (m - 2)
    return numerator / (m * (m - 3))


def _within_groups(to_groups: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum over the pairs of images of each group, (g,), from a matrix's sums by group (n, g)."""
    images = np.arange(len(groups))
    sum_over_own_group = to_groups[images, groups]  # (n,)
    return np.bincount(groups, weights=sum_over_own_group)


def _total_and_without_groups(
    row_sums: np.ndarray, within: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Sum of a symmetric matrix, in full and without each group's rows and columns: (1 + g,)."""
    sums_of_rows = np.bincount(groups, weights=row_sums)  # (g,)
    # A group's columns have the same sum as its rows; both include the block (`within`) where they
    # cross.
    rows_and_columns = 2 * sums_of_rows - within
    return row_sums.sum() - np.r_[0, rows_and_columns]


def cka(first: Kernel, second: Kernel, first_hsic: np.ndarray | None = None) -> np.ndarray:
    """Debiased linear CKA of two kernels of the same images; NaN for constant features.

    It is (1 + g,): on all images, then without each of g objects.

    Args:
        first_hsic: (1 + g,) `hsic(first, first)`, to compute it once for several comparisons.
    """
    if first_hsic is None:
        first_hsic = hsic(first, first)
    second_hsic = hsic(second, second)
    squared_scale = first_hsic * second_hsic
    squared_scale_or_nan = np.where(squared_scale > 0, squared_scale, np.nan)
    return hsic(first, second) / np.sqrt(squared_scale_or_nan)


def plain_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Linear CKA of (n, p) and (n, q) with the biased estimator, 0..1; NaN for constant features.

    For comparison with published numbers.

    Source: Kornblith et al. 2019, section 3, table 1.
    """
    first_kernel = _centred_kernel(first)
    second_kernel = _centred_kernel(second)
    scale = np.linalg.norm(first_kernel) * np.linalg.norm(second_kernel)
    if scale == 0:
        return float("nan")
    return float(np.sum(first_kernel * second_kernel) / scale)


def _centred_kernel(features: np.ndarray) -> np.ndarray:
    """Linear kernel (n, n) of centred features (n, d)."""
    in_double_precision = features.astype(np.float64)
    centred = in_double_precision - in_double_precision.mean(axis=0)
    return centred @ centred.T


def jackknife_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Low and high end of the confidence interval of CKA.

    Args:
        values: (1 + g,) CKA on all images, then without each of g objects.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 11.2 (standard
    error), on the artanh scale.
    """
    transformed = np.arctanh(np.clip(values, -CLOSEST, CLOSEST))
    on_all_images = transformed[0]
    without_each_object = transformed[1:]
    objects = len(without_each_object)
    standard_error = np.sqrt((objects - 1) * np.var(without_each_object))
    half_width = NormalDist().inv_cdf((1 + confidence) / 2) * standard_error
    return float(np.tanh(on_all_images - half_width)), float(np.tanh(on_all_images + half_width))


def mean_over(
    values_of_datasets: Sequence[tuple[np.ndarray, Sequence[str] | np.ndarray]],
) -> np.ndarray:
    """Mean CKA over datasets, in full and without each object: (1 + objects,), objects sorted.

    An object is left out of all datasets that show it; datasets that don't keep their CKA.

    Args:
        values_of_datasets: per dataset, its CKA (1 + g,) and the names of the g objects, such as
            ([0.9, 0.88, 0.91], ["1f431", "1f436"]).
    """
    all_objects: set[str] = set()
    for _, object_names in values_of_datasets:
        all_objects.update(object_names)
    objects = sorted(all_objects)

    full_of_datasets = []
    left_out_of_datasets = []  # (objects,) per dataset
    for values, object_names in values_of_datasets:
        full = values[0]
        without_objects_of_dataset = pd.Series(values[1:], pd.Index(object_names))
        without_each_object = without_objects_of_dataset.reindex(objects, fill_value=full)
        full_of_datasets.append(full)
        left_out_of_datasets.append(without_each_object.to_numpy())
    return np.r_[np.mean(full_of_datasets), np.mean(left_out_of_datasets, axis=0)]


@dataclass(frozen=True)
class Comparison:
    """Features of a run compared with the pretrained model's, on one dataset or over several."""

    values: np.ndarray  # (1 + g,) CKA
    object_names: np.ndarray | None  # (g,) str; None for the mean over several datasets
    plain: float  # CKA with the biased estimator
    n: int  # number of images


def comparison_table(
    features: Iterable[Path],
    columns_of_features: Mapping[str, Mapping[str, object]],
    pretrained_layer: str | None,
    ood_datasets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """CKA of each fine-tuned run with its pretrained model, by layer and dataset.

    Args:
        features: files <model>/<target>/<method>/<size>/<seed>/<dataset>.safetensors of pretrained
            models and fine-tuned runs on the same datasets.
        columns_of_features: for each name of features in the files, in the order of the rows, the
            columns that describe it: {"stage1": {"layer": "stage1", "depth": 1}}.
        pretrained_layer: layer of the pretrained model to compare all features with; None compares
            equal layers.
        ood_datasets: rows with dataset `others` average over these, except the target.

    Returns:
        model, method, target, size, seed, dataset, the columns that describe the features, n, cka,
        ci_low, ci_high, biased (plain estimator, for comparison with published numbers).

    Raises:
        UserError: there is no fine-tuned run, too few images, or the pretrained features lack the
            layer.
    """
    files_of_runs = by_run(features)
    comparisons = _compare_all(files_of_runs, pretrained_layer)
    rows = []
    for run in _fine_tuned(files_of_runs):
        for features_name, description in columns_of_features.items():
            of_datasets = comparisons.get((run, features_name), {})
            with_mean = _with_mean(of_datasets, run.target, ood_datasets)
            for dataset, compared in with_mean.items():
                run_columns = dict(zip(RUN_COLUMNS, run.values(RUN_COLUMNS), strict=True))
                number_columns = _number_columns(compared, confidence)
                rows.append({**run_columns, "dataset": dataset, **description, **number_columns})
    first_description = next(iter(columns_of_features.values()))
    columns = [*RUN_COLUMNS, "dataset", *first_description, *NUMBER_COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def _number_columns(compared: Comparison, confidence: float) -> dict[str, float]:
    """Values of `NUMBER_COLUMNS`, such as {"n": 500, "cka": 0.93, "ci_low": 0.91, ...}."""
    low, high = jackknife_interval(compared.values, confidence)
    return {
        "n": compared.n,
        "cka": compared.values[0],
        "ci_low": low,
        "ci_high": high,
        "biased": compared.plain,
    }


def _fine_tuned(files_of_runs: Mapping[Run, Mapping[str, Path]]) -> list[Run]:
    """All runs except pretrained models; a UserError if there are none."""
    fine_tuned_runs = [run for run in files_of_runs if run.method != PRETRAINED]
    if not fine_tuned_runs:
        raise UserError(
            "representations: no fine-tuned run is chosen; "
            "choose methods and targets in config.yaml."
        )
    return fine_tuned_runs


def _compare_all(
    files_of_runs: Mapping[Run, Mapping[str, Path]], pretrained_layer: str | None
) -> dict[tuple[Run, str], dict[str, Comparison]]:
    """{(run, "stage1"): {"noto": Comparison(...)}}: by run and name of features, then dataset."""
    fine_tuned_runs = _fine_tuned(files_of_runs)
    pretrained_files = []  # model, dataset, file
    for run, files in files_of_runs.items():
        if run.method == PRETRAINED:
            pretrained_files += [(run.model, dataset, path) for dataset, path in files.items()]
    comparisons: dict[tuple[Run, str], dict[str, Comparison]] = {}
    for model, dataset, pretrained_file in Progress(pretrained_files, desc="CKA", unit="dataset"):
        file_of_run = {}  # runs of this model with features of this dataset
        for run in fine_tuned_runs:
            if run.model == model and dataset in files_of_runs[run]:
                file_of_run[run] = files_of_runs[run][dataset]
        compared_runs = compare(pretrained_file, file_of_run, pretrained_layer)
        for run, features_name, compared in compared_runs:
            comparisons.setdefault((run, features_name), {})[dataset] = compared
    return comparisons


def compare(
    before: Path, after: Mapping[Run, Path], pretrained_layer: str | None
) -> Iterator[tuple[Run, str, Comparison]]:
    """Compare the features of runs with the features of the pretrained model, on one dataset.

    Args:
        before, after: files of features, <dataset>.safetensors, of the pretrained model and each
            run.
        pretrained_layer: layer of the pretrained model to compare all features with; None compares
            equal layers.

    Yields:
        A run, the name of its features (such as "stage1"), and their comparison.

    Raises:
        UserError: the features are of different or too few images, or the layer is missing.
    """
    index = _index(before)
    dataset = before.stem
    object_names, groups = np.unique(index["object_id"].astype(str), return_inverse=True)
    pretrained_features = load_file(before)  # (images, d) by layer
    if pretrained_layer is not None and pretrained_layer not in pretrained_features:
        raise UserError(
            f"config, representations.layers: '{pretrained_layer}' is needed for comparison; "
            "add it to the list."
        )
    pretrained_kernels = {}
    pretrained_hsics = {}  # by layer, each kernel with itself
    for layer, features in pretrained_features.items():
        kernel = Kernel.of(features, groups, dataset)
        pretrained_kernels[layer] = kernel
        pretrained_hsics[layer] = hsic(kernel, kernel)
    for run, path in after.items():
        if not _index(path).equals(index):
            raise UserError(
                f"{path} and {before} are of different images; delete both and run again."
            )
        for features_name, features in load_file(path).items():
            layer = features_name if pretrained_layer is None else pretrained_layer
            kernel = Kernel.of(features, groups, dataset)
            compared = Comparison(
                values=cka(pretrained_kernels[layer], kernel, pretrained_hsics[layer]),
                object_names=object_names,
                plain=plain_cka(pretrained_features[layer], features),
                n=len(index),
            )
            yield run, features_name, compared


def _index(features: Path) -> pd.DataFrame:
    """image_id and object_id of the images of a file of features, which tell whether two agree."""
    path = features.with_suffix(".index.parquet")
    return pd.read_parquet(path, columns=["image_id", "object_id"])


def _with_mean(
    of_datasets: Mapping[str, Comparison], target: str, ood_datasets: Collection[str]
) -> dict[str, Comparison]:
    """{"noto": ..., "others": ...}: adds the mean over OOD datasets except the target, if any."""
    on_others = [
        compared
        for dataset, compared in of_datasets.items()
        if dataset in ood_datasets and dataset != target
    ]
    with_mean = dict(of_datasets)
    if on_others:
        values_of_datasets = []
        for compared in on_others:
            assert compared.object_names is not None  # only means have none
            values_of_datasets.append((compared.values, compared.object_names))
        with_mean[OTHERS] = Comparison(
            values=mean_over(values_of_datasets),
            object_names=None,
            plain=float(np.mean([compared.plain for compared in on_others])),
            n=sum(compared.n for compared in on_others),
        )
    return with_mean
