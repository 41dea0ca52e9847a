"""ObjectNet: .../images/<object>/<name>.png in a zip whose password is on its download page, next to the terms.

The label space maps each object to one or several ImageNet classes; other objects are left out.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import refuse_missing
from rib.data.unzip import decrypted_members

PASSWORD = "OBJECTNET_PASSWORD"  # environment variable


def items(dataset: DatasetSource, *, border: int, also: dict) -> Iterator[Item]:
    """Yield every image of the label space without its red border, in archive order.

    Args:
        dataset: the zip; label space keys are the objects' folder names; `exclude` has image ids (`<object>/<name>`).
        border: pixels cropped on each side.
        also: further folders, each with the folder whose class its images have.

    Raises:
        UserError: the password is missing or wrong, an object has no image, or a setting is out of range.
    """
    labels = {key: label for label, key in enumerate(dataset.space.keys)}
    if border < 0:
        raise UserError(
            f"{dataset}: border is {border}; set a number of pixels of at least 0 in its settings."
        )
    for folder, key in also.items():
        if key not in dataset.space.keys:
            raise UserError(
                f"{dataset}: also names {key}, which is not one of its classes; correct its settings."
            )
        labels[folder] = labels[key]

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return (
            path.suffix == ".png"
            and path.parent.parent.name == "images"
            and path.parent.name in labels
        )

    (archive,) = dataset.archives_for("the zip")
    missing = dict(labels)
    for name, read in decrypted_members(archive, wanted, PASSWORD):
        path = PurePosixPath(name)
        image_id = f"{path.parent.name}/{path.name}"
        if image_id not in dataset.exclude:
            missing.pop(path.parent.name, None)
            photo = Photo(read, f"{dataset}, {name} ({archive.name})", border)
            yield photo_item(labels[path.parent.name], image_id, dataset.source, image_id, photo)
    refuse_missing(missing, len(labels), dataset)
