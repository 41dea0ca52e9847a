"""The pretraining proxy: a dataset, or part of one, that replaces the pretraining data."""

from collections.abc import Mapping
from dataclasses import dataclass

from rib.base.errors import UserError
from rib.config.catalog import Catalog
from rib.config.entries import Dataset, Family
from rib.config.schema import known_name


@dataclass(frozen=True)
class Reference:
    """The pretraining proxy.

    Attributes:
        dataset: the dataset, all or part of which is the proxy.
        images_per_class: size of the part; None for a whole dataset of role reference.
    """

    dataset: Dataset
    images_per_class: int | None

    @property
    def name(self) -> str:
        return self.dataset.name

    def is_excluded_from(self, dataset: Dataset) -> bool:
        """Whether a dataset shares source images with the proxy, which are then excluded from the dataset."""
        if self.images_per_class is None:
            return False
        same_sources = dataset.source_group is not None and dataset.source_group == self.dataset.source_group
        return dataset.name == self.name or same_sources


def choose_reference(config: Mapping, family: Family, catalog: Catalog) -> Reference | None:
    """The pretraining proxy that config or the family chooses, if any.

    Raises:
        UserError: The dataset is unknown or has another role.
    """
    choice, where = config["reference"], "config, reference"
    if choice == "default":
        choice, where = family.reference, f"families/{family.name}.yaml, reference"
    if choice in (None, "none"):
        return None
    part = choice if isinstance(choice, dict) else {"part_of": choice, "images_per_class": None}
    whole = part["images_per_class"] is None
    fitting = {
        name: entry
        for name, entry in catalog.datasets.items()
        if entry.family == family.name and (entry.role == "reference") == whole
    }
    kind = "dataset of role reference" if whole else "dataset that is evaluated"
    if not fitting:
        raise UserError(f"{where}: family {family.name} has no {kind}; give it one or set reference to none.")
    return Reference(fitting[known_name(part["part_of"], fitting, kind, where)], part["images_per_class"])
