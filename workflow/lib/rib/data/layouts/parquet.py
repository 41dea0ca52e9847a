"""Parquet files with one image per row, as in datasets of the Hugging Face hub.

One column has the encoded image, another the class. A few rows are in memory at a time.
"""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial as partially
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.text import printable
from rib.data.archives import CHUNK, TooLargeError, Unpacked
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._labels import Classes, slice_level
from rib.data.layouts._selection import Selection
from rib.data.variables import PHOTO_MEGABYTES, photo_limit
from rib.schema.fields import is_whole
from rib.schema.messages import nearest, show

BYTES = "bytes"  # field with the image in a structure of `bytes` and `path`
HUGGING_FACE = b"huggingface"  # key of the hub's JSON facts in the schema's metadata
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Columns:
    """Columns that are read."""

    image: str
    label: str
    slices: Sequence[str]
    source: str | None
    objects: str | None
    where: Sequence[str]  # columns that select rows


def items(
    dataset: DatasetSource,
    *,
    image: str = "image",
    label: str = "label",
    names: list[str] | None = None,
    in_class_order: bool = False,
    slices: list[str] | None = None,
    where: dict[str, Any] | None = None,
    source: str | None = None,
    objects: str | None = None,
    partial: bool = False,
) -> Iterator[Item]:
    """Yield the image of every row, in the order of the files and their rows.

    If the file names the integers of a column in `slices`, `where`, `source` or `objects`, the
    names are used.

    Args:
        dataset: Parquet files; `exclude` has image ids (`<file>/<number of the row>`, from 0).
            Label space keys, or names, are labels.
        image: column of the encoded image: bytes, or a structure with a field `bytes`.
        label: column of the class: text, or integers with names.
        names: of the labels 0, 1, ...; by default as the file states them.
        in_class_order: whether the labels 0, 1, ... are the entry's classes in their order.
        slices: columns of text or integers by which accuracies are split.
        where: values of the rows that are read, such as `{"domain": ["sketch", "photo"]}`.
        source: column shared by images made from the same original.
        objects: column shared by images that show one object.
        partial: whether classes may lack images.

    Raises:
        UserError: a file is damaged or unpacks to too many bytes; a column is missing or has
            another type; a label is a number without a name or, in a dataset with all classes of
            its family, no class; no row is selected, or a class has no image (unless partial).
    """
    classes = Classes(dataset, names=names, in_class_order=in_class_order, partial=partial)
    selection = Selection(where or {}, dataset)
    columns = Columns(
        image=image,
        label=label,
        slices=slices or [],
        source=source,
        objects=objects,
        where=selection.columns,
    )
    for archive in dataset.archives:
        with _opened(archive) as parquet:
            file = PhotoFile(parquet, archive, columns, dataset)
            for row in file.rows(selection):
                item = _item_of_row(row, columns, classes, dataset)
                if item is not None:
                    yield item
    selection.refuse_nothing()
    classes.refuse_mismatch()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file for a `with` block, in which any error of Arrow becomes a UserError."""
    try:
        # Without this buffer, a column is read at once for a whole group of rows.
        with pq.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False) as parquet:
            yield parquet
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Arrow raises many types on damaged input
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} can't be read as a Parquet file ({reason[:300]}); it is damaged or written in "
            "an unusual way: fetch it again, or write it with pyarrow's defaults."
        ) from error


@dataclass(frozen=True)
class Row:
    """A row of a file."""

    image_id: str
    photo: Photo
    label: str | int | None  # None for an empty cell
    label_names: Sequence[str] | None  # names of 0, 1, ... in the file
    facts: Mapping[str, str | int | None]  # such as {"domain": "sketch"}; names in place of numbers


def _item_of_row(
    row: Row, columns: Columns, classes: Classes, dataset: DatasetSource
) -> Item | None:
    """The row's image; None if the row is excluded, or its label is no class."""
    if row.image_id in dataset.exclude:
        return None
    class_index = classes.class_of(row.label, row.image_id, row.label_names)
    if class_index is None:
        return None
    classes.add_image(class_index)
    source = row.image_id
    if columns.source is not None:
        source = str(slice_level(row.facts[columns.source], columns.source, row.image_id, dataset))
    slices = {
        name: slice_level(row.facts[name], name, row.image_id, dataset) for name in columns.slices
    }
    item = photo_item(class_index, row.image_id, dataset.source, source, row.photo)
    item = replace(item, slices=slices)
    if columns.objects is None:
        return item
    shown_object = slice_level(row.facts[columns.objects], columns.objects, row.image_id, dataset)
    return replace(item, object_id=f"{dataset.source}/{shown_object}")


class PhotoFile:
    """A Parquet file of images, whose columns are checked.

    Args:
        parquet: the open file.
        path: of this file.
        columns: to read.
        dataset: for messages.

    Raises:
        UserError: a column is missing or has another type.
    """

    def __init__(
        self, parquet: pq.ParquetFile, path: Path, columns: Columns, dataset: DatasetSource
    ):
        self._parquet = parquet
        self._path = path
        self._columns = columns
        self._dataset = dataset
        facts = [*columns.slices, columns.source, columns.objects, *columns.where]
        self._fact_columns = list(dict.fromkeys(column for column in facts if column is not None))
        stored_image = _stored_image_column(parquet, columns.image, path)
        _refuse_missing_or_nested(parquet, stored_image, path)
        text_columns = dict.fromkeys([columns.label, *self._fact_columns])
        for column in text_columns:
            _refuse_missing_or_nested(parquet, column, path)
            _refuse_other_type(parquet, column, path)
        self._columns_to_read = list(dict.fromkeys([stored_image, *text_columns]))
        self._names_of_column = _names_of_each_column(parquet, text_columns)

    def rows(self, selection: Selection) -> Iterator[Row]:
        """The selected rows, in order.

        Raises:
            UserError: a row has no image, or all images together have too many bytes: any number of
                rows may refer to one stored image.
        """
        unpacked = Unpacked(self._path, self._path.stat().st_size)
        number_of_row = -1
        for group in range(self._parquet.num_row_groups):
            if not self._has_selected_row(group, selection):
                number_of_row += self._parquet.metadata.row_group(group).num_rows
                continue
            for cells in self._cells_of_group(group, self._columns_to_read):
                number_of_row += 1
                facts = self._facts_of(cells, self._fact_columns)
                if not selection.includes(facts):
                    continue
                image_id = f"{self._path.name}/{number_of_row}"
                encoded = self._encoded_image(cells[self._columns.image], image_id)
                unpacked.add(len(encoded))
                yield Row(
                    image_id=image_id,
                    photo=Photo(
                        partially(_refuse_large_image, encoded, image_id, self._path),
                        f"{self._dataset}, row {number_of_row} ({self._path.name})",
                    ),
                    label=cells[self._columns.label],
                    label_names=self._names_of_column.get(self._columns.label),
                    facts=facts,
                )

    def _cells_of_group(self, group: int, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Cells of each row, such as {"image": {"bytes": b"..."}, "label": 3}."""
        batches = self._parquet.iter_batches(
            ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False
        )
        for batch in batches:
            yield from batch.to_pylist()

    def _has_selected_row(self, group: int, selection: Selection) -> bool:
        """Whether a group of rows has a selected one; if not, its images need not be read."""
        if not selection.columns:
            return True
        for cells in self._cells_of_group(group, selection.columns):
            if selection.includes(self._facts_of(cells, selection.columns)):
                return True
        return False

    def _facts_of(
        self, cells: Mapping[str, Any], columns: Sequence[str]
    ) -> dict[str, str | int | None]:
        """Texts and numbers of a row, {"domain": "sketch"}; numbers are replaced by their names."""
        facts: dict[str, str | int | None] = {}
        for column in columns:
            fact = cells[column]
            names = self._names_of_column.get(column)
            if names is not None and is_whole(fact):
                fact = names[fact] if 0 <= fact < len(names) else None
            if isinstance(fact, str):
                fact = printable(fact)
            facts[column] = fact
        return facts

    def _encoded_image(self, cell: bytes | Mapping[str, bytes] | None, image_id: str) -> bytes:
        """The image's bytes from its cell: bytes, or a structure with a field `bytes`."""
        encoded = cell.get(BYTES) if isinstance(cell, Mapping) else cell
        if encoded is None:
            raise UserError(
                f"{self._dataset}: {image_id} has no bytes in the column "
                f"{show(self._columns.image)}; images that lie outside of the file are not read: "
                "exclude the row in the dataset's entry, or use files that contain their images."
            )
        return encoded


def _refuse_large_image(encoded: bytes, image_id: str, path: Path) -> bytes:
    """The same bytes; a TooLargeError here counts among the images that may be left out."""
    largest = photo_limit(PHOTO_MEGABYTES)
    if len(encoded) > largest:
        raise TooLargeError(path, image_id, largest)
    return encoded


def _refuse_missing_or_nested(parquet: pq.ParquetFile, column: str, path: Path) -> None:
    """A UserError unless a column is there and plain; `image.bytes` is a structure's field."""
    schema = parquet.metadata.schema
    stored_paths = [schema.column(number).path for number in range(len(schema))]
    numbers = []
    for number, stored_path in enumerate(stored_paths):
        # pyarrow reads all columns with this prefix if asked for one.
        if stored_path == column or stored_path.startswith(f"{column}."):
            numbers.append(number)
    if not numbers:
        names = list(dict.fromkeys(parquet.schema_arrow.names))
        shown_names = ", ".join(map(show, names[:10]))
        raise UserError(
            f"{path} has no column {show(column)}{nearest(column, names)}; its columns are "
            f"{shown_names}: correct the dataset's settings."
        )
    is_list = schema.column(numbers[0]).max_repetition_level > 0
    if len(numbers) > 1 or stored_paths[numbers[0]] != column or is_list:
        raise UserError(
            f"{path}: the column {show(column)} is a list or structure, or one of several of this "
            "name; name another in the dataset's settings."
        )


def _stored_image_column(parquet: pq.ParquetFile, image: str, path: Path) -> str:
    """Name of the column with the bytes: `image`, or `image.bytes` for a structure."""
    schema = parquet.schema_arrow
    if image not in schema.names:
        return image  # refused later, like other missing columns
    column_type = schema.field(schema.names.index(image)).type
    stored_name = image
    if pa.types.is_struct(column_type) and column_type.get_field_index(BYTES) >= 0:
        column_type = column_type.field(BYTES).type
        stored_name = f"{image}.{BYTES}"
    if column_type not in (pa.binary(), pa.large_binary()):
        raise UserError(
            f"{path}: the column {show(image)} has neither bytes nor structures with bytes in a "
            f"field '{BYTES}'; correct image in the dataset's settings."
        )
    return stored_name


def _refuse_other_type(parquet: pq.ParquetFile, column: str, path: Path) -> None:
    """A UserError unless a column has texts or integers."""
    schema = parquet.schema_arrow
    column_type = schema.field(schema.names.index(column)).type
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    is_text = column_type in (pa.string(), pa.large_string())
    if not is_text and not pa.types.is_integer(column_type):
        raise UserError(
            f"{path}: the column {show(column)} has neither texts nor whole numbers; name another "
            "in the dataset's settings."
        )


def _names_of_each_column(
    parquet: pq.ParquetFile, columns: Collection[str]
) -> dict[str, Sequence[str]]:
    """Names of 0, 1, ... as the library `datasets` stores them: {"label": ["cat", "dog"]}."""
    metadata = parquet.schema_arrow.metadata or {}
    if HUGGING_FACE not in metadata:
        return {}
    facts = json.loads(metadata[HUGGING_FACE])
    if not isinstance(facts, dict) or not isinstance(facts.get("info"), dict):
        return {}
    features = facts["info"].get("features")
    if not isinstance(features, dict):
        return {}
    names_of_column: dict[str, Sequence[str]] = {}
    for column in columns:
        feature = features.get(column)
        if not isinstance(feature, dict) or "names" not in feature:
            continue
        names = feature["names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the names of the column {show(column)} are no list of texts")
        names_of_column[column] = names
    return names_of_column
