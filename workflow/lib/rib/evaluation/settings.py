"""Settings of the stages that merge weights and use the networks of runs. No torch."""

from typing import Literal

from rib.base.settings import FreeSettings, Settings, Texts
from rib.data.settings import DatasetView
from rib.models.settings import ComputeSettings


class MergeSettings(Settings):
    """What the file of a merge depends on, besides the checkpoints that it merges."""

    algorithm: str  # file of the method's algorithm
    settings: FreeSettings  # of the algorithm
    parents: Texts  # keys of the checkpoints that are merged (see rib.config.run.parent_of)
    # `merge` and `ensemble` are computed on loading (see rib.methods)
    form: Literal["weights", "curve", "merge", "ensemble"]
    code: str  # digest of the source code


class SelectionSettings(Settings):
    """What a merge that is selected on held-out images depends on, besides its input files."""

    algorithm: str  # file of the method's algorithm
    settings: FreeSettings  # of the algorithm
    parents: Texts  # keys of the checkpoints that are merged
    view: DatasetView  # the part of the target that is used
    evaluation_batch_size: int  # images per forward pass
    compute: ComputeSettings
    code: str  # digest of the source code


class NetworkSettings(Settings):
    """How the networks of a run are loaded and given the images of datasets."""

    parents: Texts = ()  # keys of the checkpoints that the run's weights are made of
    algorithm: str | None = None  # file of the algorithm that makes the network, on loading, if any
    view: DatasetView  # the part of each dataset that is used
    evaluation_batch_size: int  # images per forward pass
    compute: ComputeSettings
    code: str  # digest of the source code


class SnapshotState(Settings):
    """State of a network in the course of training, which is scored like a point of a curve."""

    alpha: float  # share of training
    weights: dict[str, float]  # 1 for the snapshot


class EvaluationSettings(NetworkSettings):
    """What the rows of a run depend on, besides its input files."""

    excludes_proxy: Texts  # datasets without those images that belong to the pretraining proxy
    split: Texts  # datasets that are split, in the order of their splits
    # datasets of the evaluation group that are scored; None for all
    only: Texts | None = None
    # snapshots that are scored, instead of the states of the run's recipe
    states: tuple[SnapshotState, ...] | None = None
    part: Literal["train", "select", "test"] = "test"  # the split that is scored where there is one


class FeatureSettings(NetworkSettings):
    """What the features of a run depend on, besides its input files."""

    layers: Literal["default"] | Texts  # `default` for all, or names (see rib.models.layers)
    limit: int  # maximum number of images


class EpochFeatureSettings(NetworkSettings):
    """What the features of a run's snapshots depend on, besides its input files."""

    limit: int  # maximum number of images


class FisherSettings(NetworkSettings):
    """What the Fisher information of a run depends on, besides its input files."""

    fisher_images: int  # maximum number of images
    kind: Literal["sampled", "empirical"] = "sampled"  # see rib.models.fisher


class InversionSettings(Settings):
    """Settings of the representation inversion."""

    images: int  # at most, per dataset
    steps: int
    layer: str
    start: Literal["noise", "mean"]
    lr: float  # initial learning rate, in units of the pixel range
    seed: int


class InversionJobSettings(NetworkSettings):
    """What the inversion of a run's representation depends on, besides its input files."""

    inversion: InversionSettings
