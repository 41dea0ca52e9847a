"""ObjectNet: .../images/<object>/<name>.png in an encrypted zip.

Its download page shows the password beside the terms. The label space maps each object to one or
several ImageNet classes; other objects are left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from rib.base.errors import UserError
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import refuse_missing
from rib.data.unzip import decrypted_members

PASSWORD = "OBJECTNET_PASSWORD"  # environment variable


def items(dataset: DatasetSource, *, border: int, also: dict[str, str]) -> Iterator[Item]:
    """Yield every image of the label space without its red border, in archive order.

    Args:
        dataset: the zip; label space keys are the objects' folder names; `exclude` has image ids
            (`<object>/<name>`).
        border: pixels cropped on each side.
        also: further folders whose images have the class of another folder, such as
            {"weight_scale": "still_camera"}.

    Raises:
        UserError: the password is missing or wrong, an object has no image, or a setting is out of
            range.
    """
    if border < 0:
        raise UserError(
            f"{dataset}: border is {border}; set a number of pixels of at least 0 in its settings."
        )
    label_of_folder = _label_of_each_folder(dataset, also)

    def is_wanted(name: str) -> bool:
        path = PurePosixPath(name)
        is_image = path.suffix == ".png" and path.parent.parent.name == "images"
        return is_image and path.parent.name in label_of_folder

    (archive,) = dataset.archives_for("the zip")
    folders_without_images = set(label_of_folder)
    for name, read in decrypted_members(archive, is_wanted, PASSWORD):
        path = PurePosixPath(name)
        folder = path.parent.name
        image_id = f"{folder}/{path.name}"
        if image_id in dataset.exclude:
            continue
        folders_without_images.discard(folder)
        photo = Photo(read, f"{dataset}, {name} ({archive.name})", border)
        yield photo_item(label_of_folder[folder], image_id, dataset.source, image_id, photo)
    refuse_missing(folders_without_images, len(label_of_folder), dataset)


def _label_of_each_folder(dataset: DatasetSource, also: Mapping[str, str]) -> dict[str, int]:
    """Class index by folder, of the label space and of `also`: {"still_camera": 0, ...}."""
    label_of_folder = {key: label for label, key in enumerate(dataset.space.keys)}
    for folder, key in also.items():
        if key not in dataset.space.keys:
            raise UserError(
                f"{dataset}: also names {key}, which is not one of its classes; correct its "
                "settings."
            )
        label_of_folder[folder] = label_of_folder[key]
    return label_of_folder
