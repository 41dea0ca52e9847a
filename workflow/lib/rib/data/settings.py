"""Settings of the stages that download, prepare, group and split datasets. No torch."""

from typing import Literal

from pydantic import JsonValue

from rib.base.settings import FreeSettings, Settings, Texts
from rib.config.budget import Limit
from rib.config.geometry import Geometry, geometry_of
from rib.config.label_space import LabelSpace
from rib.config.run import ALL


class DatasetView(Settings):
    """The part of each dataset that the jobs of a model use, and how large its images are."""

    geometry: Geometry | None  # of the images; None for jobs that need the index and classes only
    # most images of each dataset, or by dataset of those that have different limits; see
    # rib.data.subsets.balanced_over_slices
    budget: Limit | dict[str, Limit]
    # size of the pretraining proxy if it is part of an evaluated dataset; None if it is a whole
    # dataset of its own
    images_per_class: int | None
    # of a model pretrained here on a subset of the proxy: size and seed of that subset, see
    # rib.data.subsets.subset
    pretraining_size: str = ALL
    pretraining_seed: int = 0
    # those datasets of the job of which whole photos are seen, without the crop of the geometry
    uncropped: Texts = ()

    def geometry_of(self, dataset: str) -> Geometry | None:
        """The geometry with which a dataset is read; None for jobs that read no pixels."""
        return geometry_of(dataset, self.geometry, self.uncropped)

    def limit_of(self, dataset: str) -> Limit:
        """The limit of a dataset's number of images."""
        if isinstance(self.budget, dict):
            return self.budget.get(dataset, ALL)
        return self.budget


class DownloadSettings(Settings):
    """What an archive depends on."""

    # file name, size and digest, but no addresses; of an archive without a digest its source, as
    # in the catalogue (rib.config.source_entries), of a folder with a `listing` of its files
    source: dict[str, JsonValue]


class PreparationSettings(Settings):
    """What a prepared dataset depends on, besides its archives."""

    digests: tuple[str | None, ...]  # pinned digest of each archive, if it has one
    layout: str  # file of the layout module
    # file of the layout from which that one takes its photos; None if it reads the archives itself
    photos_layout: str | None = None
    settings: FreeSettings  # of the layout: keyword arguments of its `items`
    # shared by datasets made from the same source images; None if it shares none
    source_group: str | None
    icons: dict[str, str]  # icon names by codepoint, if the archives have no such table
    exclude: Texts  # image ids or class keys to leave out
    only: Texts | None = None  # ids of the images to prepare; None: all that the layout finds
    space: LabelSpace  # classes whose images are prepared
    # whether classes without images are left out of the label space
    classes_per_dataset: bool
    # `array`: images are resized to a geometry; `encoded`: photos are kept as published
    storage: Literal["array", "encoded"]
    geometry: Geometry | None  # None for encoded photos
    expected: int | None  # required number of images; None if the entry doesn't state it
    about: int | None  # approximate number of images, to check the disk space
    code: str  # digest of the source code


class SplitSettings(Settings):
    """What the split of a dataset depends on, besides its input files."""

    # fractions of source images in `train` and `select`, with a sum below 1; the rest is `test`
    fractions: dict[str, float]
    view: DatasetView  # the part of the dataset that is split
    # of each dataset that was split before: whether it is of the same source group
    same_sources: tuple[bool, ...]
    code: str  # digest of the source code
