"""Limits of Parquet files that others made, checked before their rows are read.

A few bytes of a Parquet file can stand for any number of rows, and for a text of any length in each
of them. What the file's footer states about that need not be true: pages have headers of their own,
and these are what a reader allocates memory by. So the headers of all pages are read here, and only
then texts, of which equal ones are kept once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.analysis.row_schema import NUMBER, TEXT, WHOLE
from rib.data.parquet_pages import chunks_of, pages_of_chunk, refuse_other_rows

POINTER = 8  # bytes of memory of a text in a table, besides its own


@dataclass(frozen=True)
class Expected:
    """Columns that a table must have."""

    kinds: Mapping[str, str]  # TEXT, WHOLE or NUMBER by column, where it is there
    needed: frozenset[str]  # columns that must be there


@dataclass(frozen=True)
class Size:
    """How much is read from Parquet files."""

    rows: int
    size: int  # bytes in memory

    def __sub__(self, other: "Size") -> "Size":
        return Size(self.rows - other.rows, self.size - other.size)


def checked_size(file: Path, expected: Expected, limit: Size) -> Size:
    """Size of a Parquet file's table in memory, with equal texts counted as often as they occur.

    Columns besides the expected ones must be numbers or texts.

    Raises:
        ValueError: the table lacks a column, has one of another type, has more rows or bytes than
            `limit`, is encoded in a way that takes any amount of memory, or its pages are not what
            its footer says.
    """
    footer = pq.read_metadata(file)
    schema = footer.schema.to_arrow_schema()
    text_columns = _refuse_other_columns(file, schema, expected)
    refuse_other_rows(file, footer, range(footer.num_columns))
    if footer.num_rows > limit.rows:
        raise ValueError(
            f"{file.name} unpacks to {footer.num_rows} rows, and the limit is {limit.rows}"
        )
    size = footer.num_rows * _bytes_of_row(schema, text_columns)
    _refuse_larger(file, size, limit)
    _refuse_larger(file, _size_of_pages(file, footer), limit)
    if text_columns:
        parquet = pq.ParquetFile(file, read_dictionary=text_columns)
        for group in range(footer.num_row_groups):
            size += _size_of_texts(parquet, group, text_columns)
            _refuse_larger(file, size, limit)
    return Size(footer.num_rows, size)


def _bytes_of_row(schema: pa.Schema, text_columns: Sequence[str]) -> int:
    """Bytes of a row in memory, without the letters of its texts."""
    size = 0
    for field in schema:
        if field.name in text_columns:
            size += POINTER
        else:
            size += math.ceil(field.type.bit_width / 8)
    return size


def _size_of_texts(parquet: pq.ParquetFile, group: int, text_columns: Sequence[str]) -> int:
    """Bytes of the letters of all texts in a group of rows, of which equal ones are read once.

    The file is opened so that text columns are dictionaries: each text is kept once, and a row has
    the position of its text.

    Args:
        group: number of the group.
        text_columns: names of the columns of texts.
    """
    size = 0
    table = parquet.read_row_group(group, columns=text_columns, use_threads=False)
    for column in table.columns:
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary)
            lengths_by_row = lengths.take(chunk.indices)
            size += pc.sum(lengths_by_row).as_py() or 0  # None of no rows
    return size


def _refuse_larger(file: Path, size: int, limit: Size) -> None:
    """Raise a ValueError if a table has more bytes than the limit."""
    if size > limit.size:
        raise ValueError(
            f"{file.name} unpacks to {size} bytes or more, and the limit is {limit.size}"
        )


def _refuse_other_columns(file: Path, schema: pa.Schema, expected: Expected) -> list[str]:
    """Names of the columns of texts; a ValueError if the columns are not as expected."""
    kinds = {field.name: _kind_of(field.type) for field in schema}
    if len(kinds) < len(schema):
        raise ValueError(f"{file.name} has two columns of one name")
    lacking = sorted(expected.needed - kinds.keys())
    if lacking:
        raise ValueError(f"{file.name} lacks the column {lacking[0]!r}")
    for name, kind in kinds.items():
        if kind is None:
            raise ValueError(
                f"{file.name} has the column {name[:50]!r} of another type than numbers and texts"
            )
        expected_kind = expected.kinds.get(name, kind)
        is_whole_for_number = expected_kind == NUMBER and kind == WHOLE
        if kind != expected_kind and not is_whole_for_number:
            raise ValueError(
                f"in {file.name}, the column {name[:50]!r} is {kind}, not {expected_kind}"
            )
    return [name for name, kind in kinds.items() if kind == TEXT]


def _kind_of(column_type: pa.DataType) -> str | None:
    """TEXT, WHOLE or NUMBER; None for other types of columns."""
    text_types = (pa.string(), pa.large_string())
    if pa.types.is_dictionary(column_type):
        return TEXT if column_type.value_type in text_types else None
    if column_type in text_types:
        return TEXT
    if pa.types.is_integer(column_type):
        return WHOLE
    if pa.types.is_floating(column_type) or pa.types.is_boolean(column_type):
        return NUMBER
    return None


def _size_of_pages(file: Path, footer: pq.FileMetaData) -> int:
    """Bytes to which all pages of a Parquet file unpack, as their headers state.

    Raises:
        ValueError: the pages of a column are not what the footer says.
    """
    content = file.read_bytes()
    size = 0
    for rows, chunk in chunks_of(footer, range(footer.num_columns)):
        for page in pages_of_chunk(file, content, chunk, rows):
            size += page.unpacked_size
    return size
