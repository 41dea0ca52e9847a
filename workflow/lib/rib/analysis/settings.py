"""Settings that several analyses share. No pandas: rules import this module."""

from pydantic import Field

from rib.base.settings import Settings, Texts
from rib.data.settings import DatasetView


class TableSettings(Settings):
    """What every job that writes tables of runs depends on, besides its files."""

    conditions: str  # on which the numbers depend, the last column of each table
    code: str  # digest of the code that makes the tables


class RIStatistics(Settings):
    """How RI and its intervals are computed."""

    ood_datasets: list[str]  # the out-of-distribution datasets that count in RI
    # Datasets with a common group share source images; None: no images are excluded from RI.
    source_groups: dict[str, str] | None
    replicates: int  # of the bootstrap
    confidence: float  # coverage of intervals, 0 to 1
    seed: int  # of the resampling


class FitRule(Settings):
    """What decides how runs are marked: as unfinished, or their rate (rib.analysis.fit)."""

    can_fit: list[str]  # methods whose runs are unfinished below the threshold
    threshold: float | None  # accuracy on the training images, 0 to 1; None for no threshold
    whole_targets: bool  # whether runs of size `all` train on the images that are evaluated
    # By model, methods whose learning rate was not chosen for it, as rib.config.grid has them.
    other_rates: dict[str, list[str]] = Field(default_factory=dict)


class GridTableSettings(TableSettings):
    """What the tables of a grid show (rib.analysis.tables.grid_tables)."""

    methods: Texts = ()  # whose rows are read
    ri: RIStatistics
    fit: FitRule
    # Datasets of the table in_distribution, which do not count in RI; none: no table.
    in_distribution: list[str]
    view: DatasetView  # with which datasets are read, to see which classes targets show
    excludes_proxy: list[str]  # datasets of which the images of the pretraining proxy are left out
    split: list[str]  # datasets that are split; empty under protocol paper
    # Names of the runs that means, curves and counts are of, pretrained models' among them; None:
    # all. A preview has runs that others don't have their like of.
    compared: list[str] | None = None
    # Where images that share their source with one of the target count in RI: targets with such
    # images, and the source group of each dataset. There is then a table leak_free.
    sharing_targets: Texts = ()
    leaking_groups: dict[str, str] | None = None
    filtered: Texts = ()  # adversarially filtered datasets; mRI is also shown without them


class MethodComparisonSettings(TableSettings):
    """How methods are compared (rib.analysis.comparison.comparison_tables)."""

    ri: RIStatistics
    compare_to: str  # the method that differences in the ranking are from
