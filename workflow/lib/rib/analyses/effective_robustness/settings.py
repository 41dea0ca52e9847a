"""Settings of the job that computes effective robustness. No pandas: rules import this module."""

from rib.base.settings import Settings
from rib.statistics.settings import TableSettings


class BaselineAccuracies(Settings):
    """Published accuracies of a baseline model, in percent."""

    model: str
    dataset: str  # out of distribution
    in_distribution: str  # the dataset with the same label space
    id: float  # accuracy in distribution
    ood: float  # accuracy on the dataset


class EffectiveRobustnessSettings(TableSettings):
    """What robustness is compared with."""

    baselines: list[BaselineAccuracies]
    confidence: float  # coverage of intervals, 0 to 1
