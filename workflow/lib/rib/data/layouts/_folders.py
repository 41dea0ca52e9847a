"""Photos in one folder per class."""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from rib.base.errors import UserError
from rib.base.progress import log
from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class Unread:
    """Counts the files of an archive that are not read, by their ending."""

    def __init__(self, dataset: DatasetSource):
        self.dataset = dataset
        self.endings: Counter[str] = Counter()

    def is_photo(self, path: PurePosixPath) -> bool:
        """Whether a file is a photo by its ending, in any case; counts it otherwise."""
        ending = path.suffix.lower()
        if ending not in ENDINGS:
            self.endings[ending] += 1
        return ending in ENDINGS

    def log(self) -> None:
        """Name what was not read, if anything, most frequent first."""
        ordered = sorted(self.endings.items(), key=lambda pair: (-pair[1], pair[0]))
        named = [f"{number} {ending or 'without an ending'}" for ending, number in ordered]
        if named:
            log.info("%s: not read: %s", self.dataset, ", ".join(named))


SUBFOLDERS = "subfolders"  # value of `objects`: a class folder has a folder for each object


def photos_in_folders(
    dataset: DatasetSource,
    labels: Mapping[str, int],
    strict: bool = False,
    partial: bool = False,
    objects: str | None = None,
) -> Iterator[Item]:
    """Yield the photos in class folders, at any depth, in archive order.

    Args:
        dataset: zip or tar; `exclude` has image ids (`<folder>/<name>`).
        strict: whether photos in other folders are an error; otherwise they are left out with a warning.
        partial: whether classes may lack images.
        objects: which photos show one object: `subfolders` (<class>/<object>/<name>), or the name of a CSV file in the
            archive with the columns image (<class>/<name>) and object; by default each photo shows its own.

    Raises:
        UserError: a class has no image (unless partial) or, if strict, there are photos in another folder; an image has
            no object in the CSV file, or there is no such file.
    """
    missing, strangers = dict(labels), Counter()
    table = None if objects in (None, SUBFOLDERS) else _read_objects(dataset, objects)
    unread = Unread(dataset)
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            class_folder = path.parent.parent if objects == SUBFOLDERS else path.parent
            folder = class_folder.name
            image_id = str(PurePosixPath(folder) / path.relative_to(class_folder))
            if path.name == objects or not unread.is_photo(path) or image_id in dataset.exclude:
                continue
            if folder not in labels:
                strangers[str(path.parent)] += 1
                continue
            missing.pop(folder, None)
            photo = Photo(read, f"{dataset}, {name} ({archive.name})")
            source = str(PurePosixPath(image_id).with_suffix(""))
            item = photo_item(labels[folder], image_id, dataset.source, source, photo)
            if objects == SUBFOLDERS:
                item = replace(item, object_id=f"{dataset.source}/{folder}/{path.parent.name}")
            elif table is not None:
                item = replace(
                    item,
                    object_id=f"{dataset.source}/{_object_of(image_id, table, objects, dataset)}",
                )
            yield item
    unread.log()
    if strangers:
        said = _strangers(strangers, labels, missing, dataset)
        if strict:
            raise UserError(
                f"{said} Rename it, add it to the class file, or take it out of the images."
            )
        log.warning("left out: %s", said)
    refuse_missing({} if partial else missing, len(labels), dataset)


def _read_objects(dataset: DatasetSource, name: str) -> dict[str, str]:
    """Object of each image, by image id, from a CSV file in the archives."""
    for archive in dataset.archives:
        for member, read in archive_members(archive):
            if PurePosixPath(member).name == name:
                rows = csv.DictReader(io.StringIO(read().decode("utf-8-sig", errors="replace")))
                if not {"image", "object"} <= set(rows.fieldnames or ()):
                    raise UserError(
                        f"{dataset}, {member}: the file needs the columns image and object."
                    )
                return {row["image"]: row["object"] for row in rows}
    raise UserError(
        f"{dataset}: there is no file {name}, which `objects` in the dataset's settings names; add it beside the class "
        f"folders, or set `objects: {SUBFOLDERS}`."
    )


def _object_of(image_id: str, objects: Mapping[str, str], name: str, dataset: DatasetSource) -> str:
    if not objects.get(image_id):
        raise UserError(
            f"{dataset}: {name} names no object of the image {image_id}; add a line for it."
        )
    return objects[image_id]


def _strangers(
    strangers: Mapping[str, int],
    labels: Collection[str],
    missing: Collection[str],
    dataset: DatasetSource,
) -> str:
    """Message about photos in unknown folders; suggests a similar class name, preferably of a class without images."""
    place = min(strangers)
    name = PurePosixPath(place).name
    near = [
        *difflib.get_close_matches(name, missing, 1),
        *difflib.get_close_matches(name, labels, 1),
    ]
    where = f"the folder {dataset}/{place}" if name else f"{dataset}, outside any folder,"
    more = f" (the first of {len(strangers)} such folders)" if len(strangers) > 1 else ""
    meant = f"; did you mean '{near[0]}'?" if near else "."
    return (
        f"{where} contains {strangers[place]} images and matches none of the classes{more}{meant}"
    )


def refuse_missing(missing: Collection[str], wanted: int, dataset: DatasetSource) -> None:
    """Refuse a dataset of which class folders are missing."""
    if missing:
        raise UserError(
            f"{dataset}: there is no image in a folder '{min(missing)}' ({len(missing)} of {wanted} class folders are "
            "missing); add images, or leave the class out in the dataset's entry; if the archive is a published one, "
            "it is the wrong file or the entry's layout is wrong."
        )
