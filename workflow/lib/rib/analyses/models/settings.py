"""Settings of the job that compares models. No pandas: rules import this module."""

from rib.statistics.settings import RIStatistics, TableSettings


class ModelComparisonSettings(TableSettings):
    """How models are compared."""

    ri: RIStatistics
    methods: list[str]  # that all models have, without curves
