"""Settings of the job that scores merges over targets. No pandas: rules import this module."""

from rib.base.settings import Texts
from rib.statistics.settings import FitRule, TableSettings


class OverTargetsSettings(TableSettings):
    """How merges over targets are scored (rib.analyses.over_targets.tables)."""

    methods: Texts = ()  # whose rows are read
    datasets: list[str]  # that none of the merges' parents was trained on
    fit: FitRule
    replicates: int  # of the bootstrap
    confidence: float  # coverage of intervals, 0 to 1
    seed: int  # of the resampling
