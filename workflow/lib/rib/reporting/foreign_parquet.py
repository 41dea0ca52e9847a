"""Limits of Parquet files that others made, checked before their rows are read.

A few bytes of a Parquet file can stand for any number of rows, and for a text of any length in each
of them. What the file's footer states about that need not be true: pages have headers of their own,
and these are what a reader allocates memory by. So the headers of all pages are read here, and only
then texts, of which equal ones are kept once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.analysis.row_schema import NUMBER, TEXT, WHOLE

POINTER = 8  # bytes of memory of a text in a table, besides its own

# Thrift's compact protocol, in which headers of pages are written.
STOP, TRUE, FALSE, BYTE, INT16, INT32, INT64, DOUBLE, BINARY = range(9)
STRUCT = 12
DEEPEST = 4  # structures in one another; a page's header has two

# Fields of a page's header, and numbers in them (parquet.thrift in apache/parquet-format).
KIND, UNPACKED_SIZE, PACKED_SIZE = 1, 2, 3
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2 = 0, 2, 3
HEADER_OF_KIND = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_2: 8}
VALUES = 1
ENCODING_OF_KIND = {DATA_PAGE: 2, DICTIONARY_PAGE: 2, DATA_PAGE_2: 4}
# Plain, of a dictionary (two numbers), runs, deltas of whole numbers, split bytes. Their values take
# memory as their page states or as their type says. Deltas of texts (6, 7) may be any size.
ENCODINGS = {0, 2, 3, 5, 8, 9}


@dataclass(frozen=True)
class Expected:
    """Columns that a table must have."""

    kinds: Mapping[str, str]  # TEXT, WHOLE or NUMBER by column, where it is there
    needed: frozenset[str]  # columns that must be there


@dataclass(frozen=True)
class Size:
    """What is read from Parquet files."""

    rows: int
    size: int  # bytes in memory

    def __sub__(self, other: "Size") -> "Size":
        return Size(self.rows - other.rows, self.size - other.size)


def checked_size(file: Path, expected: Expected, most: Size) -> Size:
    """Size of a Parquet file's table in memory, with texts that are equal counted as often as they occur.

    Columns besides the expected ones must be numbers or texts.

    Raises:
        ValueError: the table lacks a column, has one of another type, has more rows or bytes than
            `most`, is encoded in a way that takes any amount of memory, or its pages are not what
            its footer says.
    """
    facts = pq.read_metadata(file)
    schema = facts.schema.to_arrow_schema()
    texts = _refuse_other_columns(file, schema, expected)
    _refuse_other_rows(file, facts)
    if facts.num_rows > most.rows:
        raise ValueError(
            f"{file.name} unpacks to {facts.num_rows} rows, and the limit is {most.rows}"
        )
    size = sum(
        facts.num_rows * (POINTER if field.name in texts else -(-field.type.bit_width // 8))
        for field in schema
    )
    _refuse_larger(file, size, most)
    _refuse_larger(file, _size_of_pages(file, facts), most)
    parquet = pq.ParquetFile(file, read_dictionary=texts)
    for group in range(facts.num_row_groups if texts else 0):
        for column in parquet.read_row_group(group, columns=texts, use_threads=False).columns:
            for chunk in column.chunks:
                lengths = pc.binary_length(chunk.dictionary)
                size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        _refuse_larger(file, size, most)
    return Size(facts.num_rows, size)


def _refuse_larger(file: Path, size: int, most: Size) -> None:
    if size > most.size:
        raise ValueError(
            f"{file.name} unpacks to {size} bytes or more, and the limit is {most.size}"
        )


def _refuse_other_columns(file: Path, schema: pa.Schema, expected: Expected) -> list[str]:
    """Names of the columns of texts; a ValueError if the columns are not as expected."""
    kinds = {field.name: _kind_of(field.type) for field in schema}
    if len(kinds) < len(schema):
        raise ValueError(f"{file.name} has two columns of one name")
    if lacking := sorted(expected.needed - kinds.keys()):
        raise ValueError(f"{file.name} lacks the column {lacking[0]!r}")
    for name, kind in kinds.items():
        if kind is None:
            raise ValueError(
                f"{file.name} has the column {name[:50]!r} of another type than numbers and texts"
            )
        wanted = expected.kinds.get(name, kind)
        if kind != wanted and not (wanted == NUMBER and kind == WHOLE):
            raise ValueError(f"in {file.name}, the column {name[:50]!r} is {kind}, not {wanted}")
    return [name for name, kind in kinds.items() if kind == TEXT]


def _kind_of(kind: pa.DataType) -> str | None:
    """TEXT, WHOLE or NUMBER; None for other types."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        return TEXT if kind in (pa.string(), pa.large_string()) else None
    if kind in (pa.string(), pa.large_string()):
        return TEXT
    if pa.types.is_integer(kind):
        return WHOLE
    return NUMBER if pa.types.is_floating(kind) or pa.types.is_boolean(kind) else None


def _chunks(facts: pq.FileMetaData) -> Iterator[tuple[int, pq.ColumnChunkMetaData]]:
    """Every stored column of every group of rows, with the number of the group's rows."""
    for number in range(facts.num_row_groups):
        group = facts.row_group(number)
        for column in range(group.num_columns):
            yield group.num_rows, group.column(column)


def _refuse_other_rows(file: Path, facts: pq.FileMetaData) -> None:
    """Raise a ValueError if a footer's numbers of rows contradict each other, or columns overlap."""
    groups = [facts.row_group(number).num_rows for number in range(facts.num_row_groups)]
    columns_agree = all(chunk.num_values == rows for rows, chunk in _chunks(facts))
    if min(groups, default=0) < 0 or sum(groups) != facts.num_rows or not columns_agree:
        raise ValueError(f"{file.name} states several numbers of rows")
    packed = [chunk.total_compressed_size for _, chunk in _chunks(facts)]
    if min(packed, default=0) < 0 or sum(packed) > file.stat().st_size:
        raise ValueError(f"{file.name} has columns that are larger than the file")


def _size_of_pages(file: Path, facts: pq.FileMetaData) -> int:
    """Bytes to which all pages unpack, as their headers state."""
    data = file.read_bytes()
    total = 0
    for rows, chunk in _chunks(facts):
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        end = start + chunk.total_compressed_size
        if not 0 <= start <= end <= len(data):
            raise ValueError(f"{file.name} has a column outside of the file")
        values = 0
        while start < end:
            header, start = _read_header(file, data, start)
            size, packed, values_of_page = _size_of_page(file, header)
            total += size
            values += values_of_page
            start += packed
        if values != rows or start != end:
            raise ValueError(f"{file.name} has other pages than its footer states")
    return total


def _read_header(file: Path, data: bytes, start: int) -> tuple[dict, int]:
    """A page's header, and where its content begins."""
    try:
        return _read_struct(data, start, DEEPEST)
    except (IndexError, RecursionError):
        raise ValueError(f"{file.name} has a page without a header") from None


def _size_of_page(file: Path, header: Mapping[int, int | dict | None]) -> tuple[int, int, int]:
    """Bytes of a page in memory and in the file, and the number of rows of which it has values."""
    kind = header.get(KIND)
    about = header.get(HEADER_OF_KIND.get(kind))
    size, packed = header.get(UNPACKED_SIZE), header.get(PACKED_SIZE)
    if not isinstance(about, dict) or not isinstance(size, int) or not isinstance(packed, int):
        raise ValueError(f"{file.name} has a page without a header")
    values = about.get(VALUES)
    if not isinstance(values, int) or min(size, packed, values) < 0:
        raise ValueError(f"{file.name} has a page without a size")
    if about.get(ENCODING_OF_KIND[kind]) not in ENCODINGS:
        raise ValueError(f"{file.name} has a page in an encoding that can unpack to any size")
    if kind == DICTIONARY_PAGE and values > size:
        raise ValueError(f"{file.name} has a dictionary of {values} values in {size} bytes")
    return size, packed, 0 if kind == DICTIONARY_PAGE else values


def _read_struct(data: bytes, place: int, depth: int) -> tuple[dict[int, int | dict | None], int]:
    """A structure's fields by their number, and where it ends.

    Whole numbers of 32 bits and structures are returned, None in place of all others. Fields must
    be in their order, so that none is there twice: readers differ in which of the two they take.

    Raises:
        ValueError: a field is out of order, of a type that no page's header has, or too deep.
        IndexError: the data ends before the structure does.
    """
    if depth == 0:
        raise ValueError("a page's header is nested too deeply")
    fields, number = {}, 0
    while (first := data[place]) != STOP:
        place += 1
        step, kind = first >> 4, first & 15
        if step == 0:
            raise ValueError("the fields of a page's header are out of order")
        number += step
        fields[number] = None
        if kind == STRUCT:
            fields[number], place = _read_struct(data, place, depth - 1)
        elif kind in (INT16, INT32, INT64):
            value, place = _read_varint(data, place)
            if kind == INT32:
                fields[number] = (value >> 1) ^ -(value & 1)  # 0, 1, 2, 3 stand for 0, -1, 1, -2
        elif kind == BINARY:  # the smallest and largest value
            length, place = _read_varint(data, place)
            place += length
        elif kind == BYTE:
            place += 1
        elif kind == DOUBLE:
            place += 8
        elif kind not in (TRUE, FALSE):  # which have no bytes
            raise ValueError("a page's header has a field of an unknown type")
    return fields, place + 1


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A whole number of seven bits per byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise ValueError("a page's header has a number of more than 64 bits")
