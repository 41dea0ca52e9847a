"""Settings of the jobs that compute distances. No pandas: rules import this module."""

from rib.base.settings import Settings
from rib.data.settings import DatasetView
from rib.statistics.settings import TableSettings


class FeatureDistanceSettings(Settings):
    """Between which datasets distances in feature space are computed."""

    datasets: list[str]
    code: str  # digest of the code that computes them


class CompressionSettings(Settings):
    """How datasets are compressed."""

    view: DatasetView  # with which datasets are read
    excludes_proxy: list[str]  # datasets of which the images of the pretraining proxy are left out
    split: list[str]  # datasets that are split; empty under protocol paper
    megabytes: float  # of pixels for each dataset
    code: str  # digest of the code that compresses


class AssociationSettings(TableSettings):
    """What distances are compared with."""

    models: list[str]
    targets: list[str]
    ood_datasets: list[str]  # the out-of-distribution datasets that count in RI
    in_distribution: str | None  # dataset to which distances of targets are measured, if any
    # Whether pairs of a target and a dataset are compared; not if RI excludes images that the
    # pairs' accuracies include.
    pairs: bool
    confidence: float  # coverage of intervals, 0 to 1
    seed: int  # of drawn permutations


class MeasuredDistances(Settings):
    """What a figure shows of distances between datasets."""

    kinds: dict[str, str]  # label of each kind of distance
    ood_datasets: list[str]  # the out-of-distribution datasets that count in RI
    # Dataset to which distances are measured; None for the mean distance to the others.
    in_distribution: str | None
    in_distribution_label: str | None
