"""Settings of stages that use the networks of runs, a class for each stage. No torch."""

from typing import Literal

from rib.base.params import FreeSettings, Settings, Texts
from rib.data.data_settings import DatasetView
from rib.grid.evaluation_batches import EvaluationBatchSize
from rib.models.model_settings import ComputeSettings
from rib.schema.part import DatasetPart, Levels


class MergeSettings(Settings):
    """How an algorithm merges checkpoints into the networks of a job."""

    # `coefficients` gives one average, `curve` one for each alpha, `select` the best on held-out
    # images; `merge` computes with tensors, `ensemble` calls several networks
    form: Literal["coefficients", "curve", "select", "merge", "ensemble"]
    algorithm: str  # file of the module
    # the algorithm's settings for each method: {"wise_ft-alpha0.25": {"alpha": 0.25}, ...}
    settings: dict[str, FreeSettings]


class NetworkSettings(Settings):
    """Settings for loading networks and images; subclasses add the settings of a stage."""

    parents: Texts = ()  # keys of the checkpoints that are loaded, such as `ft`
    # None for unmerged checkpoints and for selected merges
    merge: MergeSettings | None = None
    # whether the parents are a training's snapshots, from first to last, each a separate network
    snapshots: bool = False
    view: DatasetView
    evaluation_batch_size: EvaluationBatchSize  # images per forward pass
    compute: ComputeSettings
    code: str  # digest of the source code; the job runs again when it changes


class EvaluationSettings(NetworkSettings):
    """Settings of an evaluation; its other inputs are files."""

    datasets: Texts  # scored datasets, in the order of their manifests
    # datasets without their images of the pretraining proxy, which stands in for pretraining data
    excludes_proxy: Texts
    split: Literal["train", "select", "test"] = "test"  # scored split, if a dataset is split
    # the scored part of the only dataset, and the levels of all its other parts
    part: DatasetPart | None = None
    other_levels: Levels = ()


class LabelCheckSettings(Settings):
    """Settings of the check of the labels of datasets; its other inputs are files."""

    datasets: Texts  # checked datasets, in the order of their manifests
    excludes_proxy: Texts  # datasets from which images of the pretraining proxy are left out
    view: DatasetView
    evaluation_batch_size: EvaluationBatchSize  # images per forward pass
    compute: ComputeSettings
    labels_checked: Texts  # datasets whose entries say that somebody has looked at their labels
    code: str  # digest of the source code; the job runs again when it changes


class FeatureSettings(NetworkSettings):
    """Settings of the features of a run or its snapshots; the other inputs are files."""

    layers: Literal["default"] | Texts  # `default` for all, or names such as `stage1`
    limit: int  # maximum number of images


class FisherSettings(NetworkSettings):
    """Settings of the Fisher information of a run; its other inputs are files."""

    fisher_images: int  # maximum number of images
    # labels sampled from the network's softmax, or the images' labels
    kind: Literal["sampled", "empirical"] = "sampled"


class InversionSettings(NetworkSettings):
    """Settings of the inversion of a run's representation; its other inputs are files."""

    images: int  # maximum number per dataset
    steps: int  # number of gradient steps
    layer: str  # inverted layer, such as `stage1`
    start: Literal["noise", "mean"]  # images to start from
    lr: float  # initial learning rate, in units of the pixel range
    seed: int  # seed of the noise
