"""Limits on the images of each dataset: `budget.max_images_per_dataset` of config.yaml."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rib.schema.run import ALL

# The largest number of images (a whole number), the largest share (with a decimal point: 0.1), or
# all images.
Limit = int | float | Literal["all"]
WHOLE_SHARE = 1.0
DEFAULT = "default"  # key of config with the limit for datasets that have none


@dataclass(frozen=True)
class Budget:
    """Limits on the numbers of images of a run's datasets: Budget(5000, {"imagenet_c": 0.1})."""

    default: Limit = ALL
    of_dataset: Mapping[str, Limit] = field(default_factory=dict)

    @classmethod
    def from_config(cls, choice: Limit | Mapping[str, Limit]) -> "Budget":
        """The budget that config states.

        Args:
            choice: a number or `all` for all datasets, or limits by dataset, where `default` (else
                no limit) is for all others: {"default": 5000, "imagenet_c": 0.1}.
        """
        if not isinstance(choice, Mapping):
            return cls(choice)
        limits = {}
        for name, limit in choice.items():
            # The share 1.0 is all images; the whole number 1 is one image.
            limits[name] = ALL if limit == WHOLE_SHARE and isinstance(limit, float) else limit
        default = limits.pop(DEFAULT, ALL)
        return cls(default, limits)

    def limit(self, dataset: str) -> Limit:
        """Limit of a dataset, such as 5000, 0.1 or "all"."""
        return self.of_dataset.get(dataset, self.default)

    def limits(self, datasets: Collection[str]) -> Limit | dict[str, Limit]:
        """Limits of some datasets, or one limit if all are the same: {"noto": 100, "fluent": 0.5}.

        Thus a dataset's limit doesn't change the settings of jobs that don't read that dataset.
        """
        if not self.of_dataset:
            return self.default
        limits = {name: self.limit(name) for name in datasets}
        different_limits = list(dict.fromkeys(limits.values()))
        if not different_limits:
            return ALL
        if len(different_limits) == 1:
            return different_limits[0]
        return limits

    def images(self, dataset: str, available: int) -> int:
        """Number of images used of a dataset that has `available` images."""
        return images_within(self.limit(dataset), available)

    def phrase(self, labels: Mapping[str, str]) -> str | None:
        """The budget in words: `at most 5000 images per dataset, 10 % of the images of IN-C`.

        None if it leaves no image of these datasets out.

        Args:
            labels: of the run's datasets, by name: {"imagenet_c": "IN-C"}.
        """
        phrases = []
        if self.default != ALL:
            phrases.append(f"{_in_words(self.default)} per dataset")
        for name, label in labels.items():
            limit = self.limit(name)
            if limit != self.default:
                phrases.append(f"{_in_words(limit)} of {label}")
        if not phrases:
            return None
        return f"at most {', '.join(phrases)}"


def images_within(limit: Limit, available: int) -> int:
    """Number of images that a limit leaves: 10 of 100 `available` ones for 0.1, at least one."""
    if limit == ALL:
        return available
    if isinstance(limit, float):
        return min(available, max(1, round(limit * available)))
    return min(limit, available)


def _in_words(limit: Limit) -> str:
    """`5000 images`, `10 % of the images` for 0.1, or `all images`."""
    if limit == ALL:
        return "all images"
    if isinstance(limit, float):
        return f"{100 * limit:g} % of the images"
    return f"{limit} images"
