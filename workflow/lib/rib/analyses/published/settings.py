"""Settings of the job that compares with published accuracies. No pandas: rules import it."""

from rib.base.settings import Settings


class PublishedAccuracy(Settings):
    """An accuracy of a pretrained model that its publisher states."""

    model: str
    dataset: str
    accuracy: float  # percent
    source: str
    # why the accuracy that this grid measures is not comparable with it; None if it is
    obstacle: str | None


class PublishedSettings(Settings):
    """What the measured accuracies are compared with (rib.analyses.published.tables)."""

    published: list[PublishedAccuracy]
    # Number of images of each whole dataset, if its entry states it; subsets are not comparable.
    expected_images: dict[str, int]
    code: str  # digest of the source code
