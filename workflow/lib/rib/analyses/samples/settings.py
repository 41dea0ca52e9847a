"""Settings of the jobs that compare predictions image by image. No pandas: rules import it."""

from typing import Literal

from rib.base.settings import Settings, Texts
from rib.config.geometry import Geometry
from rib.statistics.settings import RIStatistics, TableSettings


class SampleSettings(TableSettings):
    """How the predictions of runs are compared (rib.analyses.samples.tables)."""

    methods: Texts = ()  # whose rows are read
    ri: RIStatistics
    real_labels: list[str]  # datasets that are also scored with ReaL labels
    groups: dict[str, str]  # by dataset with groups of images, the column of its index with them
    # scores besides accuracy of which the family asks for RI, with intervals
    scores: list[Literal["macro_f1", "worst_group"]]


class CellSettings(Settings):
    """What explains the cells of RI (rib.analyses.samples.cells)."""

    methods: Texts = ()  # whose rows are read
    ood_datasets: list[str]  # the datasets that count in RI
    size: str  # of the training subset whose runs are explained
    publishable: list[str]  # datasets whose images may be shown
    geometry: Geometry  # of the images of datasets that are stored as encoded photos
    uncropped: Texts = ()  # datasets of which these are shown without the geometry's crop
    code: str  # digest of the source code
