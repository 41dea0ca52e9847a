"""Photos in one folder per class."""

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
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


def photos_in_folders(
    dataset: DatasetSource, labels: Mapping[str, int], strict: bool = False, partial: bool = False
) -> Iterator[Item]:
    """Yield the photos in class folders, at any depth, in archive order.

    Args:
        dataset: zip or tar; `exclude` has image ids (`<folder>/<name>`).
        strict: whether photos in other folders are an error; otherwise they are left out with a warning.
        partial: whether classes may lack images.

    Raises:
        UserError: a class has no image (unless partial) or, if strict, there are photos in another folder.
    """
    missing, strangers = dict(labels), Counter()
    unread = Unread(dataset)
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            folder = path.parent.name
            image_id = f"{folder}/{path.name}"
            if not unread.is_photo(path) or image_id in dataset.exclude:
                continue
            if folder in labels:
                missing.pop(folder, None)
                photo = Photo(read, f"{dataset}, {name} ({archive.name})")
                yield photo_item(labels[folder], image_id, dataset.source, f"{folder}/{path.stem}", photo)
            else:
                strangers[str(path.parent)] += 1
    unread.log()
    if strangers:
        said = _strangers(strangers, labels, missing, dataset)
        if strict:
            raise UserError(f"{said} Rename it, add it to the class file, or take it out of the images.")
        log.warning("left out: %s", said)
    refuse_missing({} if partial else missing, len(labels), dataset)


def _strangers(
    strangers: Mapping[str, int], labels: Collection[str], missing: Collection[str], dataset: DatasetSource
) -> str:
    """Message about photos in unknown folders; suggests a similar class name, preferably of a class without images."""
    place = min(strangers)
    name = PurePosixPath(place).name
    near = [*difflib.get_close_matches(name, missing, 1), *difflib.get_close_matches(name, labels, 1)]
    where = f"the folder {dataset}/{place}" if name else f"{dataset}, outside any folder,"
    more = f" (the first of {len(strangers)} such folders)" if len(strangers) > 1 else ""
    meant = f"; did you mean '{near[0]}'?" if near else "."
    return f"{where} contains {strangers[place]} images and matches none of the classes{more}{meant}"


def refuse_missing(missing: Collection[str], wanted: int, dataset: DatasetSource) -> None:
    """Refuse a dataset of which class folders are missing."""
    if missing:
        raise UserError(
            f"{dataset}: there is no image in a folder '{min(missing)}' ({len(missing)} of {wanted} class folders are "
            "missing); add images, or leave the class out in the dataset's entry; if the archive is a published one, "
            "it is the wrong file or the entry's layout is wrong."
        )
