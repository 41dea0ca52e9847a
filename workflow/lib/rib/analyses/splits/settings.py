"""Settings of the job that counts the images of splits. No pandas: rules import this module."""

from rib.analysis.settings import TableSettings


class SplitCountSettings(TableSettings):
    """Of which datasets the images are counted (rib.analyses.splits.tables)."""

    datasets: list[str]  # in the order of the files of their splits
