"""Settings of the job that compares representations. No pandas: rules import this module."""

from rib.statistics.settings import TableSettings


class CkaSettings(TableSettings):
    """What CKA is averaged over, and how sure it is."""

    ood_datasets: list[str]  # over which means are, except the target
    confidence: float  # coverage of intervals, 0 to 1
