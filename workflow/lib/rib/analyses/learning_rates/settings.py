"""Settings of the jobs that choose learning rates. No pandas: rules import this module."""

from rib.base.settings import Settings, Texts
from rib.statistics.settings import TableSettings


class SweptMethod(Settings):
    """A method of the grid, which is a variant of another with one learning rate."""

    method: str  # whose rates are swept, with what else is swept, such as lora-rank4
    entry: str  # its entry in the catalogue, such as lora
    recipe: str  # of its training
    can_fit: bool  # whether it can fit its training images
    lr: dict[str, float]  # learning rate by model


class LearningRateSettings(TableSettings):
    """How learning rates are chosen on the training images (rib.analyses.learning_rates.tables)."""

    swept_methods: dict[str, SweptMethod]  # by name of the method in runs
    # Accuracy on the training images, 0 to 1, that every run of a method that can fit must reach;
    # None: no run must.
    threshold: float | None


class HeldOutRateSettings(LearningRateSettings):
    """How learning rates are chosen on select splits (rib.analyses.learning_rates.held_out)."""

    methods: Texts = ()  # whose rows are read
    family: str  # whose file the chosen rates are for
    targets: list[str]
    seeds: list[int]
