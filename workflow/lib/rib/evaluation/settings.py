"""Settings of the stages that use the networks of runs, one class for a stage. No torch."""

from typing import Literal

from rib.base.settings import FreeSettings, Settings, Texts
from rib.data.dataset_part import DatasetPart, Levels
from rib.data.settings import DatasetView
from rib.models.settings import ComputeSettings


class MergeSettings(Settings):
    """How an algorithm merges checkpoints into the networks of a job."""

    # `merge` and `ensemble` need tensors, `select` held-out images (see rib.methods)
    form: Literal["coefficients", "curve", "select", "merge", "ensemble"]
    algorithm: str  # its file
    # of the algorithm, by method: {"wise_ft-alpha0.25": {"alpha": 0.25}, ...}
    settings: dict[str, FreeSettings]


class NetworkSettings(Settings):
    """How the networks of a run are loaded and given the images of datasets.

    The selection of a merge has no other settings; other stages add theirs.
    """

    parents: Texts = ()  # keys of the checkpoints that the networks are made of
    # None for checkpoints as they are, and for merges that were selected
    merge: MergeSettings | None = None
    # whether the parents are a training's snapshots, from first to last, each a network of its own
    snapshots: bool = False
    view: DatasetView  # the part of each dataset that is used
    evaluation_batch_size: int  # images per forward pass
    compute: ComputeSettings
    code: str  # digest of the source code


class EvaluationSettings(NetworkSettings):
    """What the rows of an evaluation depend on, besides its input files."""

    datasets: Texts  # that are scored, in the order of their manifests
    excludes_proxy: Texts  # datasets without those images that belong to the pretraining proxy
    split: Literal["train", "select", "test"] = "test"  # that is scored where datasets are split
    # the part of the only dataset that is scored, and the levels of all its other parts
    part: DatasetPart | None = None
    other_levels: Levels = ()


class LabelCheckSettings(Settings):
    """What the verdict on the labels of a dataset depends on, besides its input files."""

    datasets: Texts  # that are scored, the checked one first
    excludes_proxy: Texts  # datasets without those images that belong to the pretraining proxy
    view: DatasetView  # the part of each dataset that is used
    evaluation_batch_size: int  # images per forward pass
    compute: ComputeSettings
    labels_checked: bool  # whether the dataset's entry says that somebody has looked at them
    code: str  # digest of the code


class FeatureSettings(NetworkSettings):
    """What the features of a run, or of its snapshots, depend on, besides its input files."""

    layers: Literal["default"] | Texts  # `default` for all, or names (see rib.models.layers)
    limit: int  # maximum number of images


class FisherSettings(NetworkSettings):
    """What the Fisher information of a run depends on, besides its input files."""

    fisher_images: int  # maximum number of images
    kind: Literal["sampled", "empirical"] = "sampled"  # see rib.models.fisher


class InversionSettings(NetworkSettings):
    """What the inversion of a run's representation depends on, besides its input files."""

    images: int  # at most, per dataset
    steps: int  # of gradient descent
    layer: str  # whose representation is inverted
    start: Literal["noise", "mean"]  # images to start from
    lr: float  # initial learning rate, in units of the pixel range
    seed: int  # of the noise
