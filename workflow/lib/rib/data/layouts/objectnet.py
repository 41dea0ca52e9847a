"""ObjectNet: .../images/<object>/<name>.png in a zip whose password its download page shows beside the terms.

Objects are ImageNet classes, or several of them, by the table of the class space; other objects are left out.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, Photo, photo_item
from rib.data.layouts._folders import refuse_missing
from rib.geometry import Geometry
from rib.io import archive_members

PASSWORD = "OBJECTNET_PASSWORD"  # environment variable


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
    border: int,
    also: dict,
) -> Iterator[Item]:
    """Yield every image of an object of the space, in the archive's order, without its red border.

    Args:
        archives: the zip.
        space: its keys are the names of objects' folders.
        icons: not used.
        exclude: image ids (`<object>/<name>`) to leave out.
        border: pixels cut off on each side.
        also: folders whose images count as another folder's class, by name.

    Raises:
        UserError: the password is missing or wrong, or an object has no image.
    """
    labels = {key: label for label, key in enumerate(space.keys)}
    labels |= {folder: labels[key] for folder, key in also.items()}

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.suffix == ".png" and path.parent.parent.name == "images" and path.parent.name in labels

    (archive,) = archives
    missing = dict(labels)
    for name, read in archive_members(archive, wanted, password=(PASSWORD, os.environ.get(PASSWORD))):
        path = PurePosixPath(name)
        image_id = f"{path.parent.name}/{path.name}"
        if image_id not in exclude:
            missing.pop(path.parent.name, None)
            photo = Photo(read, f"{dataset}, {name} ({archive.name})", border)
            yield photo_item(labels[path.parent.name], image_id, source_group or dataset, image_id, photo)
    refuse_missing(missing, len(labels), dataset)
