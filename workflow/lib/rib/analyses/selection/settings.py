"""Settings of the job that chooses variants. No pandas: rules import this module."""

from typing import Literal

from rib.base.settings import Texts
from rib.statistics.settings import RIStatistics, TableSettings


class VariantChoiceSettings(TableSettings):
    """How a variant of each sweep is chosen (rib.analyses.selection.tables)."""

    methods: Texts = ()  # whose rows are read
    ri: RIStatistics
    # a rule of rib.analyses.selection.tables
    choose_by: Literal["target", "leave_one_out", "oracle"]
    variants: dict[str, list[str]]  # to choose from, by method, in the order of the grid
    # Source group of each dataset in an RI, its own name if it shares no source images.
    groups: dict[str, str]
