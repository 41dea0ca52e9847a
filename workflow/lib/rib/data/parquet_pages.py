"""What the pages of a Parquet file take in memory, by their own headers, before they are unpacked.

What a file's footer states about that need not be true: pages have headers of their own, and these
are what a reader allocates memory by.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow.parquet as pq

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
# Numbers of the fields of the second header.
VALUES = 1
ENCODING_OF_KIND = {DATA_PAGE: 2, DICTIONARY_PAGE: 2, DATA_PAGE_2: 4}
# Plain, of a dictionary (two numbers), runs, deltas of whole numbers, split bytes. Their values
# take memory as their page states or as their type says. Deltas of texts (6, 7) may be any size.
ENCODINGS = {0, 2, 3, 5, 8, 9}

# A structure's fields by their number; None in place of what is neither whole number nor structure.
Fields = dict[int, "int | Fields | None"]


class Page(NamedTuple):
    """What a page's header states."""

    unpacked_size: int  # bytes in memory
    packed_size: int  # bytes in the file
    rows: int  # of which the page has values; 0 for a dictionary


class Content(Protocol):
    """The bytes of a file, in memory or mapped into it."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> int: ...


def chunks_of(
    footer: pq.FileMetaData, columns: Collection[int]
) -> Iterator[tuple[int, pq.ColumnChunkMetaData]]:
    """Some stored columns of every group of rows, with the number of the group's rows."""
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for column in columns:
            yield group.num_rows, group.column(column)


def refuse_other_rows(file: Path, footer: pq.FileMetaData, columns: Collection[int]) -> None:
    """Raise a ValueError if a footer's numbers of rows differ, or columns overlap.

    Args:
        columns: numbers of the stored columns that are checked, which must not be lists.
    """
    rows_of_groups = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    columns_agree = all(chunk.num_values == rows for rows, chunk in chunks_of(footer, columns))
    is_negative = min(rows_of_groups, default=0) < 0
    if is_negative or sum(rows_of_groups) != footer.num_rows or not columns_agree:
        raise ValueError(f"{file.name} states several numbers of rows")
    packed_sizes = [chunk.total_compressed_size for _, chunk in chunks_of(footer, columns)]
    if min(packed_sizes, default=0) < 0 or sum(packed_sizes) > file.stat().st_size:
        raise ValueError(f"{file.name} has columns that are larger than the file")


def pages_of_chunk(
    file: Path, content: Content, chunk: pq.ColumnChunkMetaData, rows: int
) -> Iterator[Page]:
    """What the headers of a stored column's pages state, in one group of rows.

    Args:
        file: the Parquet file, for messages.
        content: its bytes.
        chunk: the column in the group, as the footer describes it.
        rows: the number of the group's rows.

    Raises:
        ValueError: the pages are not what the footer says, or may take any amount of memory.
    """
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < position:
        position = chunk.dictionary_page_offset
    end = position + chunk.total_compressed_size
    if not 0 <= position <= end <= len(content):
        raise ValueError(f"{file.name} has a column outside of the file")
    rows_of_pages = 0
    while position < end:
        header, position = _read_header(file, content, position)
        page = page_of(file, header)
        yield page
        rows_of_pages += page.rows
        position += page.packed_size
    if rows_of_pages != rows or position != end:
        raise ValueError(f"{file.name} has other pages than its footer states")


def _read_header(file: Path, content: Content, position: int) -> tuple[Fields, int]:
    """The header of the page at a position, and where the page's content begins."""
    try:
        return read_struct(content, position, DEEPEST)
    except (IndexError, RecursionError):
        raise ValueError(f"{file.name} has a page without a header") from None


def page_of(file: Path, header: Fields) -> Page:
    """What a header states about its page; a ValueError if that is incomplete or has no limit."""
    kind = header.get(KIND)
    if not isinstance(kind, int) or kind not in HEADER_OF_KIND:
        raise ValueError(f"{file.name} has a page without a header")
    header_of_kind = header.get(HEADER_OF_KIND[kind])
    unpacked_size = header.get(UNPACKED_SIZE)
    packed_size = header.get(PACKED_SIZE)
    if not isinstance(header_of_kind, dict):
        raise ValueError(f"{file.name} has a page without a header")
    if not isinstance(unpacked_size, int) or not isinstance(packed_size, int):
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


def read_struct(content: Content, position: int, depth: int) -> tuple[Fields, int]:
    """The structure at a position, and where it ends.

    Whole numbers of 32 bits and structures are returned, None in place of all others. Fields must
    be in their order, so that none is there twice: readers differ in which of the two they take.

    Raises:
        ValueError: a field is out of order, of a type that no page's header has, or too deep.
        IndexError: the content ends before the structure does.
    """
    if depth == 0:
        raise ValueError("a page's header is nested too deeply")
    fields: Fields = {}
    number = 0
    while content[position] != STOP:
        # The first byte of a field: how much greater its number is than the last one, and its type.
        step = content[position] >> 4
        field_type = content[position] & 15
        position += 1
        if step == 0:
            raise ValueError("the fields of a page's header are out of order")
        number += step
        fields[number] = None
        if field_type == STRUCT:
            fields[number], position = read_struct(content, position, depth - 1)
        elif field_type == INT32:
            encoded, position = _read_varint(content, position)
            fields[number] = _signed(encoded)
        elif field_type in (INT16, INT64):
            _, position = _read_varint(content, position)
        elif field_type == BINARY:  # the smallest and largest value
            length, position = _read_varint(content, position)
            position += length
        elif field_type == BYTE:
            position += 1
        elif field_type == DOUBLE:
            position += 8
        elif field_type not in (TRUE, FALSE):  # which have no bytes
            raise ValueError("a page's header has a field of an unknown type")
    return fields, position + 1


def _signed(encoded: int) -> int:
    """The number that a zigzag code stands for: 0, 1, 2, 3 stand for 0, -1, 1, -2."""
    return (encoded >> 1) ^ -(encoded & 1)


def _read_varint(content: Content, position: int) -> tuple[int, int]:
    """A whole number of seven bits per byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 64, 7):
        byte = content[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:  # the last one
            return number, position
    raise ValueError("a page's header has a number of more than 64 bits")
