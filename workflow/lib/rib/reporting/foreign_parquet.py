"""Limits of Parquet files that others made, checked before their rows are read.

A few bytes of a Parquet file can stand for any number of rows, and for a text of any length in each
of them. What the file's footer states about that need not be true: pages have headers of their own,
and these are what a reader allocates memory by. So the headers of all pages are read here, and only
then texts, of which equal ones are kept once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.analysis.row_schema import NUMBER, TEXT, WHOLE

POINTER = 8  # bytes of memory of a text in a table, besides its own

# Types of fields in Thrift's compact protocol, in which headers of pages are written.
STOP, TRUE, FALSE, BYTE, INT16, INT32, INT64, DOUBLE, BINARY = range(9)
STRUCT = 12
DEEPEST = 4  # structures in one another; a page's header has two

# Numbers of the fields of a page's header (parquet.thrift in apache/parquet-format).
KIND = 1
UNPACKED_SIZE = 2
PACKED_SIZE = 3
# Kinds of pages, and the field of the header that is a second header, of this kind of page.
DATA_PAGE = 0
DICTIONARY_PAGE = 2
DATA_PAGE_2 = 3
HEADER_OF_KIND = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_2: 8}
NO_HEADER = 0  # of other kinds; fields are numbered from 1
# Numbers of the fields of the second header.
VALUES = 1
ENCODING_OF_KIND = {DATA_PAGE: 2, DICTIONARY_PAGE: 2, DATA_PAGE_2: 4}
# Plain, of a dictionary (two numbers), runs, deltas of whole numbers, split bytes. Their values
# take memory as their page states or as their type says. Deltas of texts (6, 7) may be any size.
ENCODINGS = {0, 2, 3, 5, 8, 9}


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


# A structure's fields by their number; None in place of what is neither whole number nor structure.
Fields = dict[int, "int | Fields | None"]


class Page(NamedTuple):
    """What a page's header states."""

    unpacked_size: int  # bytes in memory
    packed_size: int  # bytes in the file
    rows: int  # of which the page has values; 0 for a dictionary


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
    _refuse_other_rows(file, footer)
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


def _chunks(footer: pq.FileMetaData) -> Iterator[tuple[int, pq.ColumnChunkMetaData]]:
    """Every stored column of every group of rows, with the number of the group's rows."""
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for column in range(group.num_columns):
            yield group.num_rows, group.column(column)


def _refuse_other_rows(file: Path, footer: pq.FileMetaData) -> None:
    """Raise a ValueError if a footer's numbers of rows differ, or columns overlap."""
    rows_of_groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    columns_agree = all(chunk.num_values == rows for rows, chunk in _chunks(footer))
    is_negative = min(rows_of_groups, default=0) < 0
    if is_negative or sum(rows_of_groups) != footer.num_rows or not columns_agree:
        raise ValueError(f"{file.name} states several numbers of rows")
    packed_sizes = [chunk.total_compressed_size for _, chunk in _chunks(footer)]
    if min(packed_sizes, default=0) < 0 or sum(packed_sizes) > file.stat().st_size:
        raise ValueError(f"{file.name} has columns that are larger than the file")


def _size_of_pages(file: Path, footer: pq.FileMetaData) -> int:
    """Bytes to which all pages of a Parquet file unpack, as their headers state.

    Raises:
        ValueError: the pages of a column are not what the footer says.
    """
    content = file.read_bytes()
    size = 0
    for rows, chunk in _chunks(footer):
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        end = start + chunk.total_compressed_size
        if not 0 <= start <= end <= len(content):
            raise ValueError(f"{file.name} has a column outside of the file")
        rows_of_pages = 0
        for page in _pages(file, content, start, end):
            size += page.unpacked_size
            rows_of_pages += page.rows
        if rows_of_pages != rows:
            raise ValueError(f"{file.name} has other pages than its footer states")
    return size


def _pages(file: Path, content: bytes, start: int, end: int) -> Iterator[Page]:
    """What the header of each page of a column states; the pages follow each other.

    They are not kept in a list, since a hostile file may have very many.

    Args:
        file: the Parquet file.
        content: its bytes.
        start: where the first header begins.
        end: where the last page must end, as the footer says.

    Raises:
        ValueError: the last page ends elsewhere.
    """
    position = start
    while position < end:
        header, position = _read_header(file, content, position)
        page = _page_of(file, header)
        position += page.packed_size
        yield page
    if position != end:
        raise ValueError(f"{file.name} has other pages than its footer states")


def _read_header(file: Path, content: bytes, position: int) -> tuple[Fields, int]:
    """The header of the page at a position, and where the page's content begins."""
    try:
        return _read_struct(content, position, DEEPEST)
    except (IndexError, RecursionError):
        raise ValueError(f"{file.name} has a page without a header") from None


def _page_of(file: Path, header: Fields) -> Page:
    """What a header states about its page; a ValueError if that is incomplete or has no limit.

    Args:
        header: fields of the header by number: the kind of the page, its sizes, and a second header
            whose number depends on the kind.
    """
    kind = header.get(KIND)
    unpacked_size = header.get(UNPACKED_SIZE)
    packed_size = header.get(PACKED_SIZE)
    if not (isinstance(kind, int) and isinstance(unpacked_size, int)):
        raise ValueError(f"{file.name} has a page without a header")
    header_of_kind = header.get(HEADER_OF_KIND.get(kind, NO_HEADER))
    if not (isinstance(header_of_kind, dict) and isinstance(packed_size, int)):
        raise ValueError(f"{file.name} has a page without a header")
    number_of_values = header_of_kind.get(VALUES)
    if not isinstance(number_of_values, int):
        raise ValueError(f"{file.name} has a page without a size")
    if min(unpacked_size, packed_size, number_of_values) < 0:
        raise ValueError(f"{file.name} has a page without a size")
    encoding = header_of_kind.get(ENCODING_OF_KIND[kind])
    if not isinstance(encoding, int) or encoding not in ENCODINGS:
        raise ValueError(f"{file.name} has a page in an encoding that can unpack to any size")
    if kind != DICTIONARY_PAGE:
        return Page(unpacked_size, packed_size, rows=number_of_values)
    if number_of_values > unpacked_size:
        raise ValueError(
            f"{file.name} has a dictionary of {number_of_values} values in {unpacked_size} bytes"
        )
    return Page(unpacked_size, packed_size, rows=0)


def _read_struct(content: bytes, position: int, depth: int) -> tuple[Fields, int]:
    """The structure at a position, and where it ends.

    It is a sequence of fields, each a byte with its type and the step from the last field's number,
    and then its value; a byte STOP is the end. Whole numbers of 32 bits and structures are
    returned, None in place of all others. Fields must be in their order, so that none is there
    twice: readers differ in which of the two they take.

    Args:
        content: the bytes of a file.
        position: where the structure begins.
        depth: how many structures may be in one another, this one included.

    Raises:
        ValueError: a field is out of order, of a type that no page's header has, or too deep.
        IndexError: the content ends before the structure does.
    """
    if depth == 0:
        raise ValueError("a page's header is nested too deeply")
    fields: Fields = {}
    number = 0
    while content[position] != STOP:
        step = content[position] >> 4
        field_type = content[position] & 15
        position += 1
        if step == 0:
            raise ValueError("the fields of a page's header are out of order")
        number += step
        fields[number] = None
        if field_type == STRUCT:
            fields[number], position = _read_struct(content, position, depth - 1)
        elif field_type == INT32:
            encoded, position = _read_varint(content, position)
            fields[number] = _signed(encoded)
        else:
            position = _end_of_field(content, position, field_type)
    return fields, position + 1


def _end_of_field(content: bytes, position: int, field_type: int) -> int:
    """Where the value of a field ends that is neither a structure nor a number of 32 bits.

    Args:
        position: where the value begins.
    """
    if field_type in (TRUE, FALSE):  # the type is the value
        return position
    if field_type == BYTE:
        return position + 1
    if field_type == DOUBLE:
        return position + 8
    if field_type in (INT16, INT64):
        _, end = _read_varint(content, position)
        return end
    if field_type == BINARY:  # the smallest and largest value
        length, start = _read_varint(content, position)
        return start + length
    raise ValueError("a page's header has a field of an unknown type")


def _signed(encoded: int) -> int:
    """The number that a zigzag code stands for: 0, 1, 2, 3 stand for 0, -1, 1, -2."""
    return (encoded >> 1) ^ -(encoded & 1)


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A whole number that is written with seven bits per byte, and where it ends.

    The lowest seven bits come first. The eighth bit of a byte says whether another byte follows.
    """
    number = 0
    for shift in range(0, 64, 7):
        byte = content[position]
        position += 1
        number |= (byte & 127) << shift
        is_last = byte < 128
        if is_last:
            return number, position
    raise ValueError("a page's header has a number of more than 64 bits")
