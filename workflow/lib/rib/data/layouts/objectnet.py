"""ObjectNet: .../images/<object>/<name>.png in a zip whose password its download page shows beside the terms.

Objects are ImageNet classes, or several of them, by the table of the class space; other objects are left out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, Photo, photo_item
from rib.data.layouts._archives import taken
from rib.data.layouts._folders import refuse_missing
from rib.data.unzip import decrypted_members
from rib.geometry import Geometry
from rib.io import UserError

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
        UserError: the password is missing or wrong, an object has no image, or a setting is out of bounds.
    """
    labels = {key: label for label, key in enumerate(space.keys)}
    if border < 0:
        raise UserError(f"{dataset}: border is {border}; give a number of pixels from 0 in its settings.")
    for folder, key in also.items():
        if key not in space.keys:
            raise UserError(f"{dataset}: also names {key}, which is none of its classes; correct its settings.")
        labels[folder] = labels[key]

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.suffix == ".png" and path.parent.parent.name == "images" and path.parent.name in labels

    (archive,) = taken(archives, dataset, "the zip")
    missing = dict(labels)
    for name, read in decrypted_members(archive, wanted, PASSWORD):
        path = PurePosixPath(name)
        image_id = f"{path.parent.name}/{path.name}"
        if image_id not in exclude:
            missing.pop(path.parent.name, None)
            photo = Photo(read, f"{dataset}, {name} ({archive.name})", border)
            yield photo_item(labels[path.parent.name], image_id, source_group or dataset, image_id, photo)
    refuse_missing(missing, len(labels), dataset)
