"""Images in one folder per class."""

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
SUBFOLDERS = "subfolders"  # value of `objects`: class folders contain a folder for each object


class Unread:
    """Counts files that a layout does not read, by ending, for the log."""

    def __init__(self, dataset: DatasetSource):
        self.dataset = dataset
        self.endings: Counter[str] = Counter()

    def is_image(self, path: PurePosixPath) -> bool:
        """Whether a file is an image by its ending, in any case; other files are counted."""
        ending = path.suffix.lower()
        if ending in ENDINGS:
            return True
        self.endings[ending] += 1
        return False

    def log(self) -> None:
        """Log the counts, such as `7 .txt, 2 without an ending`, if there are any."""
        # most frequent first; of equally frequent endings, the first by name
        in_order_of_names = Counter(dict(sorted(self.endings.items())))
        descriptions = []
        for ending, number_of_files in in_order_of_names.most_common():
            descriptions.append(f"{number_of_files} {ending or 'without an ending'}")
        if descriptions:
            log.info("%s: not read: %s", self.dataset, ", ".join(descriptions))


def images_in_folders(
    dataset: DatasetSource,
    labels: Mapping[str, int],
    strict: bool = False,
    partial: bool = False,
    objects: str | None = None,
) -> Iterator[Item]:
    """Yield the images in class folders, at any depth, in archive order.

    Args:
        dataset: zip or tar; `exclude` has image ids (`<folder>/<name>`).
        labels: class by folder name, such as `{"n01440764": 0}`.
        strict: whether images in other folders are an error; otherwise they are left out with a
            warning.
        partial: whether classes may lack images.
        objects: which images show one object: `subfolders` (<class>/<object>/<name>), or the name
            of a CSV file in the archive with columns image (<class>/<name>) and object. By default
            each image shows a different object.

    Raises:
        UserError: a class has no image (unless partial); if strict, another folder has images; or
            the CSV file is missing or lacks an image.
    """
    object_of_image = None
    if objects is not None and objects != SUBFOLDERS:
        object_of_image = _read_objects(dataset, objects)
    folders_without_images = set(labels)
    images_of_strange_folder: Counter[str] = Counter()
    unread = Unread(dataset)
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            class_folder = path.parent.parent if objects == SUBFOLDERS else path.parent
            folder = class_folder.name
            # `<class>/<name>` or, with subfolders, `<class>/<object>/<name>`.
            image_id = str(PurePosixPath(folder) / path.relative_to(class_folder))
            is_file_of_objects = path.name == objects
            if is_file_of_objects or not unread.is_image(path) or image_id in dataset.exclude:
                continue
            if folder not in labels:
                images_of_strange_folder[str(path.parent)] += 1
                continue
            folders_without_images.discard(folder)
            photo = Photo(read, f"{dataset}, {name} ({archive.name})")
            source = str(PurePosixPath(image_id).with_suffix(""))
            item = photo_item(labels[folder], image_id, dataset.source, source, photo)
            if objects is not None:
                object_name = _object_of(image_id, object_of_image, objects, dataset)
                item = replace(item, object_id=f"{dataset.source}/{object_name}")
            yield item
    unread.log()
    if images_of_strange_folder:
        message = _about_strange_folders(
            images_of_strange_folder, labels, folders_without_images, dataset
        )
        if strict:
            raise UserError(
                f"{message} Rename it, add it to the class file, or take it out of the images."
            )
        log.warning("left out: %s", message)
    if not partial:
        refuse_missing(folders_without_images, len(labels), dataset)


def _read_objects(dataset: DatasetSource, file_name: str) -> dict[str, str]:
    """Object that each image shows, {"fox/1.png": "rex"}, from a CSV file in the archives."""
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            if PurePosixPath(name).name != file_name:
                continue
            text = read().decode("utf-8-sig", errors="replace")
            rows = csv.DictReader(io.StringIO(text))
            columns = set(rows.fieldnames or ())
            if not {"image", "object"} <= columns:
                raise UserError(f"{dataset}, {name}: the file needs the columns image and object.")
            return {row["image"]: row["object"] for row in rows}
    raise UserError(
        f"{dataset}: there is no file {file_name}, which `objects` in the dataset's settings "
        f"names; add it beside the class folders, or set `objects: {SUBFOLDERS}`."
    )


def _object_of(
    image_id: str,
    object_of_image: Mapping[str, str] | None,
    objects: str,
    dataset: DatasetSource,
) -> str:
    """The object that an image shows, `rex`: from the table or, if that is None, its folder."""
    if object_of_image is None:
        return str(PurePosixPath(image_id).parent)
    object_name = object_of_image.get(image_id)
    if not object_name:
        raise UserError(
            f"{dataset}: {objects} names no object of the image {image_id}; add a line for it."
        )
    return object_name


def _about_strange_folders(
    images_of_folder: Mapping[str, int],
    labels: Collection[str],
    folders_without_images: Collection[str],
    dataset: DatasetSource,
) -> str:
    """Message about the first folder that is no class, with the most similar class."""
    folder = min(images_of_folder)
    name = PurePosixPath(folder).name
    subject = f"the folder {dataset}/{folder}" if name else f"{dataset}, outside any folder,"
    message = (
        f"{subject} contains {images_of_folder[folder]} images and matches none of the classes"
    )
    if len(images_of_folder) > 1:
        message += f" (the first of {len(images_of_folder)} such folders)"
    similar_names = difflib.get_close_matches(name, folders_without_images, 1)
    similar_names += difflib.get_close_matches(name, labels, 1)
    if similar_names:
        return f"{message}; did you mean '{similar_names[0]}'?"
    return f"{message}."


def refuse_missing(
    folders_without_images: Collection[str], number_of_folders: int, dataset: DatasetSource
) -> None:
    """Raise a UserError if class folders, out of this number, have no image."""
    if folders_without_images:
        raise UserError(
            f"{dataset}: there is no image in a folder '{min(folders_without_images)}' "
            f"({len(folders_without_images)} of {number_of_folders} class folders are missing); "
            "add images, or change the dataset's entry: leave the class out there or, with layout "
            "class_folders, set `settings: {partial: true}`; if the archive is a published one, it "
            "is the wrong file or the entry's layout is wrong."
        )
