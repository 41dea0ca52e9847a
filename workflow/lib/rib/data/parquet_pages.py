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
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end = start + chunk.total_compressed_size
    if not 0 <= start <= end <= len(content):
        raise ValueError(f"{file.name} has a column outside of the file")
    rows_of_pages = 0
    for page in _pages(file, content, start, end):
        rows_of_pages += page.rows
        yield page
    if rows_of_pages != rows:
        raise ValueError(f"{file.name} has other pages than its footer states")


def _pages(file: Path, content: Content, start: int, end: int) -> Iterator[Page]:
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
        page = page_of(file, header)
        position += page.packed_size
        yield page
    if position != end:
        raise ValueError(f"{file.name} has other pages than its footer states")


def _read_header(file: Path, content: Content, position: int) -> tuple[Fields, int]:
    """The header of the page at a position, and where the page's content begins."""
    try:
        return read_struct(content, position, DEEPEST)
    except (IndexError, RecursionError):
        raise ValueError(f"{file.name} has a page without a header") from None


def page_of(file: Path, header: Fields) -> Page:
    """What a header states about its page; a ValueError if that is incomplete or has no limit.

    Args:
        header: fields of the header by number: the kind of the page, its sizes, and a second header
            whose number depends on the kind.
    """
    kind = header.get(KIND)
    unpacked_size = header.get(UNPACKED_SIZE)
    packed_size = header.get(PACKED_SIZE)
    if not isinstance(kind, int) or kind not in HEADER_OF_KIND:
        raise ValueError(f"{file.name} has a page without a header")
    header_of_kind = header.get(HEADER_OF_KIND[kind])
    if not isinstance(header_of_kind, dict):
        raise ValueError(f"{file.name} has a page without a header")
    if not (isinstance(unpacked_size, int) and isinstance(packed_size, int)):
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
            fields[number], position = read_struct(content, position, depth - 1)
        elif field_type == INT32:
            encoded, position = _read_varint(content, position)
            fields[number] = _signed(encoded)
        else:
            position = _end_of_field(content, position, field_type)
    return fields, position + 1


def _end_of_field(content: Content, position: int, field_type: int) -> int:
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


def _read_varint(content: Content, position: int) -> tuple[int, int]:
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
