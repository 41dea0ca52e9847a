"""Settings of the jobs that follow training. No pandas: rules import this module."""

from rib.base.settings import Texts
from rib.statistics.settings import TableSettings


class EpochCkaSettings(TableSettings):
    """What CKA is averaged over, and how sure it is."""

    snapshots: int  # number of snapshots, at equal distances in training
    ood_datasets: list[str]  # over which means are, except the target
    confidence: float  # coverage of intervals, 0 to 1


class EpochTradeoffSettings(TableSettings):
    """What mRI is averaged over."""

    methods: Texts = ()  # whose rows are read
    ood_datasets: list[str]  # the out-of-distribution datasets that count in RI
    # Datasets with a common group share source images; None: no images are excluded from RI.
    source_groups: dict[str, str] | None
