"""Settings of the job that describes datasets and models. No pandas: rules import this module."""

from rib.base.settings import Settings
from rib.statistics.settings import TableSettings


class DatasetFacts(Settings):
    """What is known of a dataset before its images are read."""

    label: str
    role: str  # what it is in this run, in words
    excluded: str  # why images are not evaluated, if any are not, in words
    licence: str
    origin: str


class ModelFacts(Settings):
    """What is known of a model before its weights are read; sizes are the side in pixels."""

    architecture: str
    pretraining: str  # data
    pixels: int  # of the input here
    own_pixels: int  # of the published input
    licence: str


class DataAndModelsSettings(TableSettings):
    """The datasets and models that are described, by name."""

    datasets: dict[str, DatasetFacts]
    models: dict[str, ModelFacts]
    split: list[str]  # datasets that are split; empty under protocol paper
