"""Settings of the job that compares groups of networks. No pandas: rules import this module."""

from rib.statistics.settings import RIStatistics, TableSettings


class NetworkGroupSettings(TableSettings):
    """How groups of networks are compared (rib.analyses.networks.tables)."""

    ri: RIStatistics
    groups: dict[str, str]  # of models that have one, by model in the order of the grid
    in_distribution: list[str]  # datasets whose change of accuracy is a measure; none: no measure
    # Numbers of pretraining images that entries of models state, by model.
    pretraining_images: dict[str, int]
