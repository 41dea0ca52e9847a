"""Photos whose folder tells their class."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.data.images import Item, Photo, photo_item
from rib.io import UserError, archive_members

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def photos_in_folders(
    archives: Sequence[Path], labels: Mapping[str, int], dataset: str, group: str | None, exclude: Collection[str]
) -> Iterator[Item]:
    """Yield the photos of folders that name a class, in the archives' order, wherever the folders lie.

    Args:
        archives: zip or tar.
        labels: class by folder.
        dataset: its name.
        group: name of the source images that the dataset shares with others, None if they are its own.
        exclude: image ids (`<folder>/<name>`) to leave out.

    Raises:
        UserError: a class has no image.
    """
    missing = dict(labels)
    for archive in archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            folder = path.parent.name
            image_id = f"{folder}/{path.name}"
            if path.suffix.lower() in ENDINGS and folder in labels and image_id not in exclude:
                missing.pop(folder, None)
                photo = Photo(read, f"{dataset}, {name} ({archive.name})")
                yield photo_item(labels[folder], image_id, group or dataset, f"{folder}/{path.stem}", photo)
    refuse_missing(missing, len(labels), dataset)


def refuse_missing(missing: Collection[str], wanted: int, dataset: str) -> None:
    """Stop where folders of classes were not found.

    Raises:
        UserError: there are some.
    """
    if missing:
        raise UserError(
            f"{dataset}: its archives hold no image in a folder '{min(missing)}' ({len(missing)} of {wanted} class folders "
            "are missing); the archive is not the published one, or its entry's layout or classes are wrong."
        )
