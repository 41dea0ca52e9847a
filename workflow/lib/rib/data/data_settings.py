"""Settings of the stages that download, prepare, group and split datasets, without torch."""

from typing import Literal

from pydantic import Field, JsonValue

from rib.base.params import FreeSettings, Settings, Texts
from rib.catalog.label_space import LabelSpace
from rib.schema.budget import Limit
from rib.schema.geometry import Geometry, geometry_of
from rib.schema.run import ALL


class DatasetView(Settings):
    """The images of each dataset that a model's jobs use, and their size."""

    geometry: Geometry | None  # None for jobs that only need the index and classes
    # Most images of each dataset, or {"noto": 5000} for datasets with different limits; see
    # rib.data.subsets.balanced_over_slices.
    budget: Limit | dict[str, Limit]
    # Source images per class in the pretraining proxy if it is part of an evaluated dataset; None
    # if it is a separate dataset.
    images_per_class: int | None
    # For a model pretrained here on a subset of the proxy: size and seed of the subset
    # (rib.data.subsets.subset).
    pretraining_size: str = ALL
    pretraining_seed: int = 0
    # Datasets whose images are resized whole, without the geometry's crop.
    uncropped: Texts = ()
    # What protocol held_out never divides: source images, class by class, or objects, such as an
    # author's photos, without regard to classes.
    split_by: Literal["source", "object"] = "source"

    def geometry_of(self, dataset: str) -> Geometry | None:
        """The geometry of a dataset's images; None for jobs that read no pixels."""
        return geometry_of(dataset, self.geometry, self.uncropped)

    def limit_of(self, dataset: str) -> Limit:
        """Most images of a dataset: a number, a share such as 0.1, or `all`."""
        if isinstance(self.budget, dict):
            return self.budget.get(dataset, ALL)
        return self.budget


class DownloadSettings(Settings):
    """Everything that an archive depends on."""

    # File name, size and digest, but no addresses. Without a digest, the source as in the catalogue
    # (rib.schema.source_entries); for a folder, also a `listing` of its files.
    source: dict[str, JsonValue]


class PreparationSettings(Settings):
    """Everything that a prepared dataset depends on, besides its archives."""

    digests: tuple[str | None, ...]  # one per archive; None if not pinned
    layout: str  # file of the layout module
    # File of another layout that provides the images; None if the layout reads the archives itself.
    photos_layout: str | None = None
    settings: FreeSettings  # keyword arguments of the layout's `items`
    # Name shared by datasets made from the same source images; None for no other dataset.
    source_group: str | None
    # Icon names, such as {"1f98a": "fox"}, if the archives have no table of them.
    icons: dict[str, str]
    exclude: Texts  # image ids or class keys to leave out
    only: Texts | None = None  # image ids; None for all that the layout finds
    # SHA-256 of the archive's files by name; empty if only the archive's digest is pinned.
    file_digests: dict[str, str] = Field(default_factory=dict)
    space: LabelSpace  # classes whose images are prepared
    # Whether classes without images leave the label space.
    classes_per_dataset: bool
    # `array`: resized to a geometry; `encoded`: bytes as published.
    storage: Literal["array", "encoded"]
    geometry: Geometry | None  # None for encoded images
    expected: int | None  # required number of images; None if not stated
    about: int | None  # approximate number of images, to check disk space
    code: str  # digest of the source code


class SplitSettings(Settings):
    """Everything that a dataset's split depends on, besides its input files."""

    # Fractions of source images in `train` and `select`, such as {"train": 0.6, "select": 0.2}; the
    # rest, above 0, is `test`.
    fractions: dict[str, float]
    view: DatasetView  # the part of the dataset that is split
    # For each dataset split before: whether both are made from the same source images.
    same_sources: tuple[bool, ...]
    code: str  # digest of the source code
