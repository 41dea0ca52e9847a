"""Settings of the job that writes tables for papers. No pandas: rules import this module."""

from rib.base.settings import Settings
from rib.statistics.settings import TableSettings


class SummaryLabels(Settings):
    """Labels by name, in display order."""

    models: dict[str, str]
    methods: dict[str, str]
    targets: dict[str, str]


class SummarySettings(TableSettings):
    """What the tables for papers show."""

    labels: SummaryLabels
    confidence: float  # coverage of intervals, 0 to 1
