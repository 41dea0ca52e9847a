"""How many images of each dataset are used: `budget.max_images_per_dataset` of config.yaml."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rib.config.run import ALL

# At most so many images of a dataset (a whole number), so large a share of them (with a decimal
# point: 0.1), or all of them.
Limit = int | float | Literal["all"]
WHOLE_SHARE = 1.0
DEFAULT = "default"  # the key of config with the limit of datasets that have none of their own


@dataclass(frozen=True)
class Budget:
    """The limits of the numbers of images of a run's datasets."""

    default: Limit = ALL
    of_dataset: Mapping[str, Limit] = field(default_factory=dict)

    @classmethod
    def from_config(cls, choice: Limit | Mapping[str, Limit]) -> "Budget":
        """The budget that config states.

        Args:
            choice: a number or `all` for all datasets, or limits by dataset, of which `default` is
                that of all others; without it these have no limit.
        """
        if not isinstance(choice, Mapping):
            return cls(choice)
        limits = {}
        for name, limit in choice.items():
            limits[name] = ALL if limit == WHOLE_SHARE and isinstance(limit, float) else limit
        default = limits.pop(DEFAULT, ALL)
        return cls(default, limits)

    def limit(self, dataset: str) -> Limit:
        """The limit of a dataset."""
        return self.of_dataset.get(dataset, self.default)

    def limits(self, datasets: Collection[str]) -> Limit | dict[str, Limit]:
        """The limits of some datasets by name; if they are the same, that one.

        So settings of jobs that read no dataset with a limit of its own don't change with it.
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
        """Number of images of a dataset that are used if it has `available` ones."""
        return images_within(self.limit(dataset), available)

    def phrase(self, labels: Mapping[str, str]) -> str | None:
        """The budget in words, such as `at most 5000 images per dataset, 10 % of IN-C`.

        None if it leaves no image of these datasets out.

        Args:
            labels: of the run's datasets, by name.
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
    """Number of images that a limit leaves of `available` ones; of a share at least one."""
    if limit == ALL:
        return available
    if isinstance(limit, float):
        return min(available, max(1, round(limit * available)))
    return min(limit, available)


def _in_words(limit: Limit) -> str:
    """A limit in words: `5000 images`, `10 % of the images` or `all images`."""
    if limit == ALL:
        return "all images"
    if isinstance(limit, float):
        return f"{100 * limit:g} % of the images"
    return f"{limit} images"
