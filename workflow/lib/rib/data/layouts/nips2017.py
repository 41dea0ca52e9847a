"""Photos of ImageNet's classes with a list of their authors, licences and labels.

The development set of the NIPS 2017 adversarial competition has this layout in the public
repository yuyang-long/SSA: dataset/images.csv, and dataset/images/<ImageId>.png. The list has one
line for each photo; `TrueLabel` is the class's number from 1 to 1000, in the order of the
WordNet ids of ILSVRC2012.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rib.base.errors import UserError
from rib.catalog.label_space import imagenet_wnids
from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, Photo

LIST = "images.csv"
COLUMNS = {"ImageId", "TrueLabel", "OriginalLandingURL", "License", "Author", "AuthorProfileURL"}
PHOTO_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}[.]png")
# A licence that lets everyone adapt and share the photos, if the author is named.
ATTRIBUTION_LICENCE = re.compile(r"https://creativecommons\.org/licenses/by/([1-4]\.0)/?")
OCTAL_BYTE = re.compile(rb"\\([0-3][0-7]{2})")
PAGE = re.compile(r"https?://[^\s\"'<>]{1,500}")


@dataclass(frozen=True)
class ListedPhoto:
    """A line of the list."""

    label: int  # class index in ImageNet's order, 0 to 999
    author: str  # address of the author's page, the same for all of the author's photos
    attribution: str  # such as `Ann, https://example.org/photos/7, CC BY 2.0`


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield the photos in the archive's order; photos of one author are one object.

    Args:
        dataset: one zip or tar with the list and the photos; label space keys are WordNet ids;
            photos of other classes are left out. `file_digests` has the SHA-256 of the list and
            of each photo, if the entry names a file with them.

    Raises:
        UserError: the list is missing, has other columns, a photo twice, a label outside 1 to
            1000 or a licence other than CC BY; or a photo is missing, twice there, or another one
            than listed.
    """
    (archive,) = dataset.archives_for("the list and the photos")
    listed = _read_list(archive, dataset)
    wnids = imagenet_wnids()
    label_of_wnid = {key: label for label, key in enumerate(dataset.space.keys)}
    missing = set(listed)
    for name, read in archive_members(archive):
        file_name = PurePosixPath(name).name
        if not PHOTO_NAME.fullmatch(file_name):
            continue
        photo_id = PurePosixPath(name).stem
        if photo_id not in listed:
            raise UserError(f"{dataset}: {LIST} does not list the photo {file_name}; remove it.")
        if photo_id not in missing:
            raise UserError(
                f"{dataset}: the photo {file_name} is there twice in {archive.name}; keep one."
            )
        missing.remove(photo_id)
        label = label_of_wnid.get(wnids[listed[photo_id].label])
        if label is None or photo_id in dataset.exclude:
            continue
        encoded = read()
        _refuse_other_bytes(encoded, file_name, dataset)
        yield _item(photo_id, listed[photo_id], label, encoded, dataset)
    if missing:
        raise UserError(
            f"{dataset}: the photo {min(missing)}.png of {LIST} is not in {archive.name} "
            f"({len(missing)} of {len(listed)} are missing); get the whole folder again."
        )


def _item(
    photo_id: str, listed: ListedPhoto, label: int, encoded: bytes, dataset: DatasetSource
) -> Item:
    """A photo as an item; a function, so that each item keeps its own bytes."""
    return Item(
        image_id=photo_id,
        label=label,
        source_id=f"{dataset.source}/{photo_id}",
        object_id=f"{dataset.source}/{listed.author}",
        picture=Photo(lambda: encoded, f"{dataset}, {photo_id}.png"),
        attribution=listed.attribution,
    )


def _read_list(archive: Path, dataset: DatasetSource) -> dict[str, ListedPhoto]:
    """The list's lines by the photos' ids."""
    for name, read in archive_members(archive):
        if PurePosixPath(name).name != LIST:
            continue
        encoded = read()
        text = encoded.decode("utf-8-sig", errors="replace")
        lines = csv.DictReader(io.StringIO(text))
        missing_columns = COLUMNS - set(lines.fieldnames or ())
        if missing_columns:
            raise UserError(
                f"{dataset}, {name}: the list has no column {', '.join(sorted(missing_columns))}; "
                "get the published list again."
            )
        listed: dict[str, ListedPhoto] = {}
        for line in lines:
            photo_id = line["ImageId"]
            if photo_id in listed:
                raise UserError(f"{dataset}, {name}: the photo {photo_id} is listed twice.")
            listed[photo_id] = _listed_photo(line, f"{dataset}, {name}, photo {photo_id}")
        _refuse_other_bytes(encoded, LIST, dataset)
        return listed
    raise UserError(f"{dataset}: there is no {LIST} in {archive.name}; get the whole folder again.")


def _listed_photo(line: Mapping[str, str], where: str) -> ListedPhoto:
    """A line of the list, checked; a UserError names the photo."""
    label = line["TrueLabel"] or ""
    number_of_classes = len(imagenet_wnids())
    is_class = label.isascii() and label.isdigit() and 1 <= int(label) <= number_of_classes
    if not is_class:
        raise UserError(
            f"{where}: TrueLabel is '{label}', not a number from 1 to {number_of_classes}; get the "
            "published list again."
        )
    licence = ATTRIBUTION_LICENCE.fullmatch(line["License"] or "")
    if licence is None:
        raise UserError(
            f"{where}: its licence is '{line['License']}', not CC BY; such a photo can't be used."
        )
    for column in ("OriginalLandingURL", "AuthorProfileURL"):
        if not PAGE.fullmatch(line[column] or ""):
            raise UserError(f"{where}: {column} is '{line[column]}', not a web address.")
    author = " ".join(_as_text(line["Author"] or "").split())
    if not author:
        raise UserError(f"{where}: it names no author, which its licence asks for.")
    return ListedPhoto(
        label=int(label) - 1,
        author=line["AuthorProfileURL"],
        attribution=f"{author}, {line['OriginalLandingURL']}, CC BY {licence[1]}",
    )


def _as_text(name: str) -> str:
    """A name in which bytes of UTF-8 are written in octal, as in the list: `\\345\\217` ..."""
    encoded = OCTAL_BYTE.sub(lambda byte: bytes([int(byte[1], 8)]), name.encode())
    return encoded.decode(errors="replace")


def _refuse_other_bytes(encoded: bytes, name: str, dataset: DatasetSource) -> None:
    """A UserError if a file is not the one whose digest the catalogue has."""
    if not dataset.file_digests:
        return
    if name not in dataset.file_digests:
        raise UserError(f"{dataset}: the catalogue has no digest of {name}; remove the file.")
    digest = hashlib.sha256(encoded).hexdigest()
    if digest != dataset.file_digests[name]:
        raise UserError(
            f"{dataset}: {name} is not the published file (SHA-256 {digest} instead of "
            f"{dataset.file_digests[name]}); get it again."
        )
