"""Settings of the job that computes accuracies by slices. No pandas: rules import this module."""

from rib.base.settings import Texts
from rib.statistics.settings import TableSettings


class SliceSettings(TableSettings):
    """How datasets are split into slices (rib.analyses.slices.tables)."""

    methods: Texts = ()  # whose rows are read
    columns: list[str]  # of the datasets' indexes; none: all that the layouts gave
    # AlexNet's errors in percent, by dataset that has them and corruption
    relative_errors: dict[str, dict[str, float]]
    # by these datasets, the models that see photos as those of published errors did
    comparable: dict[str, list[str]]
