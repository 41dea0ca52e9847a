"""Tars of samples, as the library webdataset writes them: <key>.jpg beside <key>.cls or <key>.json.

A key is a file's path up to the first point of its name. Files of a sample follow each other, in
any order. One sample is in memory at a time.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial as partially
from pathlib import Path, PurePosixPath
from typing import Any

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.text import printable
from rib.data.archives import TooLargeError, archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import Unread
from rib.data.layouts._labels import LONGEST_TEXT, Classes, slice_level
from rib.data.layouts._selection import Selection
from rib.schema.messages import show

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
CLASS_ENDING = "cls"
JSON_ENDING = "json"
LARGEST_JSON = 1 << 20  # bytes
LARGEST_CLASS = 4 * LONGEST_TEXT  # bytes; a character has at most four
NUMBER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Fields:
    """Fields of the JSON files that are read."""

    label: str | None  # None: labels are in .cls files
    slices: Sequence[str]
    source: str | None
    objects: str | None
    where: Sequence[str]  # fields that select samples

    @property
    def are_needed(self) -> bool:
        """Whether JSON files are read at all."""
        names = [self.label, *self.slices, self.source, self.objects, *self.where]
        return any(name is not None for name in names)


@dataclass
class Sample:
    """The files of a key that were read so far."""

    key: str
    encoded: bytes | TooLargeError | None = None  # the image, or the error that it is too large
    image_name: str = ""
    label: str | int | None = None  # from a .cls file
    facts: Mapping[str, Any] | None = None  # from a JSON file
    kinds: set[str] = field(default_factory=set)  # kinds of files read: image, cls, json


def items(
    dataset: DatasetSource,
    *,
    label: str | None = None,
    names: list[str] | None = None,
    in_class_order: bool = False,
    slices: list[str] | None = None,
    where: dict[str, Any] | None = None,
    source: str | None = None,
    objects: str | None = None,
    partial: bool = False,
) -> Iterator[Item]:
    """Yield the image of every sample, in the order of the tars and their files.

    Files with other endings are not read; the log counts them.

    Args:
        dataset: tars; `exclude` has image ids (`<tar>/<key>`). Label space keys, or names, are
            labels.
        label: field of the class in <key>.json, text or an integer with a name; by default the
            class is in <key>.cls.
        names: of the labels 0, 1, ...
        in_class_order: whether the labels 0, 1, ... are the entry's classes in their order.
        slices: fields of text or integers by which accuracies are split.
        where: values of the samples that are read, such as `{"domain": ["sketch", "photo"]}`.
        source: field shared by images made from the same original.
        objects: field shared by images that show one object.
        partial: whether classes may lack images.

    Raises:
        UserError: a sample lacks its image, label or a field, or has two images or labels; a label
            is a number without a name or, in a dataset with all classes of its family, no class; no
            sample is selected, or a class has no image (unless partial).
    """
    classes = Classes(dataset, names=names, in_class_order=in_class_order, partial=partial)
    selection = Selection(where or {}, dataset)
    fields = Fields(
        label=label,
        slices=slices or [],
        source=source,
        objects=objects,
        where=selection.columns,
    )
    unread = Unread(dataset)
    for archive in dataset.archives:
        for sample in _samples(archive, fields, unread, dataset):
            image_id = printable(f"{archive.name}/{sample.key}")
            if image_id in dataset.exclude:
                continue
            if not selection.includes(_selecting_facts(sample, image_id, fields, dataset)):
                continue
            item = _item_of_sample(sample, image_id, fields, classes, dataset)
            if item is not None:
                yield item
    unread.log()
    selection.refuse_nothing()
    classes.refuse_mismatch()


def _samples(
    archive: Path, fields: Fields, unread: Unread, dataset: DatasetSource
) -> Iterator[Sample]:
    """Yields each sample when all of its files are read."""
    sample: Sample | None = None
    for name, read in archive_members(archive):
        key, ending = _split(name)
        kind = _kind_of(ending, fields)
        if not key or kind is None:
            unread.endings[f".{ending}"] += 1
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        _add_file(sample, kind, name, read, archive, dataset)
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a file, ("a/1", "jpg"); the key is empty if the name has none."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    if not stem:
        return "", ending.lower()
    return str(path.with_name(stem)), ending.lower()


def _kind_of(ending: str, fields: Fields) -> str | None:
    """`image`, `cls` or `json`; None if the file is not read."""
    if ending in IMAGE_ENDINGS:
        return "image"
    if ending == CLASS_ENDING and fields.label is None:
        return CLASS_ENDING
    if ending == JSON_ENDING and fields.are_needed:
        return JSON_ENDING
    return None


def _add_file(
    sample: Sample,
    kind: str,
    name: str,
    read: Callable[[], bytes],
    archive: Path,
    dataset: DatasetSource,
) -> None:
    """Read a file into the sample; a UserError if it is the second of its kind or malformed."""
    if kind in sample.kinds:
        raise UserError(
            f"{dataset}: in {archive}, {_shown(sample.key)} has two files of the kind {kind}, the "
            f"second is {_shown(name)}; don't use this file."
        )
    sample.kinds.add(kind)
    if kind == "image":
        sample.image_name = f"{dataset}, {name} ({archive.name})"
        try:
            sample.encoded = read()
        except TooLargeError as error:
            sample.encoded = error  # counts among the images that may be left out
        return
    largest = LARGEST_JSON if kind == JSON_ENDING else LARGEST_CLASS
    content = read()
    if len(content) > largest:
        raise UserError(
            f"{archive} contains {_shown(name)} of more than {in_bytes(largest)}; don't use this "
            "file."
        )
    try:
        if kind == JSON_ENDING:
            sample.facts = _facts_in(content)
        else:
            sample.label = _label_in(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{archive}: {_shown(name)} can't be read ({str(error)[:LONGEST_TEXT]}); correct it or "
            "don't use this file."
        ) from error


def _facts_in(content: bytes) -> Mapping[str, Any]:
    """Content of a JSON file, {"domain": "sketch"}; a ValueError if it is no object."""
    facts = json.loads(content)
    if not isinstance(facts, dict):
        raise ValueError("it is not a JSON object")
    return facts


def _label_in(content: bytes) -> str | int:
    """Label in a .cls file: `fox`, or the number 3 for the text 3."""
    text = content.decode("utf-8-sig").strip()
    if not text:
        raise ValueError("it is empty")
    if NUMBER.fullmatch(text):
        return int(text)
    return text


def _selecting_facts(
    sample: Sample, image_id: str, fields: Fields, dataset: DatasetSource
) -> dict[str, str | int | None]:
    """Fields that select samples, such as {"domain": "sketch"}; null becomes None."""
    facts: dict[str, str | int | None] = {}
    for name in fields.where:
        fact = _field_of(sample, name, image_id, dataset)
        facts[name] = None if fact is None else slice_level(fact, name, image_id, dataset)
    return facts


def _item_of_sample(
    sample: Sample, image_id: str, fields: Fields, classes: Classes, dataset: DatasetSource
) -> Item | None:
    """The sample's image; None if its label is no class."""
    hint = "the files of a sample must follow each other: repair the tar, or exclude the sample"
    if sample.encoded is None:
        raise UserError(f"{dataset}: {_shown(image_id)} has no image; {hint}.")
    label: object = sample.label
    if fields.label is not None:
        label = _field_of(sample, fields.label, image_id, dataset)
    if label is None:
        raise UserError(
            f"{dataset}: {_shown(image_id)} has no label in a file that ends in .{CLASS_ENDING}; "
            f"{hint}, or name the field of its JSON file as label in the dataset's settings."
        )
    class_index = classes.class_of(label, image_id)
    if class_index is None:
        return None
    classes.add_image(class_index)
    levels = {
        name: slice_level(_field_of(sample, name, image_id, dataset), name, image_id, dataset)
        for name in [*fields.slices, fields.source, fields.objects]
        if name is not None
    }
    source = image_id if fields.source is None else str(levels[fields.source])
    photo = Photo(partially(_image_bytes, sample.encoded), sample.image_name)
    item = photo_item(class_index, image_id, dataset.source, source, photo)
    item = replace(item, slices={name: levels[name] for name in fields.slices})
    if fields.objects is None:
        return item
    return replace(item, object_id=f"{dataset.source}/{levels[fields.objects]}")


def _field_of(sample: Sample, name: str, image_id: str, dataset: DatasetSource) -> object:
    """A field's value in the sample's JSON file."""
    if sample.facts is None or name not in sample.facts:
        raise UserError(
            f"{dataset}: {_shown(image_id)} has no field {show(name)} in a JSON file; correct the "
            "dataset's settings, or exclude the sample."
        )
    return sample.facts[name]


def _image_bytes(encoded: bytes | TooLargeError) -> bytes:
    """The image's bytes; a stored error is raised here, where the image may be left out."""
    if isinstance(encoded, TooLargeError):
        raise encoded
    return encoded


def _shown(name: str) -> str:
    """A name for messages, cut, as hostile names may be very long."""
    return f"'{name[:LONGEST_TEXT]}'"
