"""Photos whose folder tells their class."""

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.data.images import Item, Photo, photo_item
from rib.io import UserError, archive_members, log

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def photos_in_folders(
    archives: Sequence[Path],
    labels: Mapping[str, int],
    dataset: str,
    group: str | None,
    exclude: Collection[str],
    strict: bool = False,
) -> Iterator[Item]:
    """Yield the photos of folders that name a class, in the archives' order, wherever the folders lie.

    Args:
        archives: zip or tar.
        labels: class by folder.
        dataset: its name.
        group: name of the source images that the dataset shares with others, None if they are its own.
        exclude: image ids (`<folder>/<name>`) to leave out.
        strict: whether photos in folders that are no class are a mistake; else they are left out with a line.

    Raises:
        UserError: a class has no image, or, if strict, photos lie in a folder that is no class.
    """
    missing, strangers = dict(labels), Counter()
    for archive in archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            folder = path.parent.name
            image_id = f"{folder}/{path.name}"
            if path.suffix.lower() not in ENDINGS or image_id in exclude:
                continue
            if folder in labels:
                missing.pop(folder, None)
                photo = Photo(read, f"{dataset}, {name} ({archive.name})")
                yield photo_item(labels[folder], image_id, group or dataset, f"{folder}/{path.stem}", photo)
            else:
                strangers[str(path.parent)] += 1
    if strangers:
        said = _strangers(strangers, labels, missing, dataset)
        if strict:
            raise UserError(f"{said} Rename it, add it to the class file, or take it out of the images.")
        log.warning("left out: %s", said)
    refuse_missing(missing, len(labels), dataset)


def _strangers(strangers: Mapping[str, int], labels: Collection[str], missing: Collection[str], dataset: str) -> str:
    """What is said of folders with photos that are no class, with the class that may be meant: one without images first."""
    place = min(strangers)
    name = PurePosixPath(place).name
    near = [*difflib.get_close_matches(name, missing, 1), *difflib.get_close_matches(name, labels, 1)]
    where = f"the folder {dataset}/{place}" if name else f"{dataset}, outside any folder,"
    more = f" (the first of {len(strangers)} such folders)" if len(strangers) > 1 else ""
    meant = f"; did you mean '{near[0]}'?" if near else "."
    return f"{where} holds {strangers[place]} images and matches none of the classes{more}{meant}"


def refuse_missing(missing: Collection[str], wanted: int, dataset: str) -> None:
    """Stop where folders of classes were not found.

    Raises:
        UserError: there are some.
    """
    if missing:
        raise UserError(
            f"{dataset}: there is no image in a folder '{min(missing)}' ({len(missing)} of {wanted} class folders are missing); "
            "add some, or give the dataset's entry classes of its own without it; of a published archive, it is another one, "
            "or its entry's layout is wrong."
        )
