"""Settings of the job that leaves filtered datasets out. No pandas: rules import this module."""

from rib.analysis.settings import RIStatistics, TableSettings


class FilteredSettings(TableSettings):
    """How mRI is compared with and without filtered datasets (rib.analyses.filtered.tables)."""

    ri: RIStatistics  # with all datasets
    filtered: list[str]  # datasets of images that another network got wrong
