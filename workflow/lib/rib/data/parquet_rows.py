"""Rows of Parquet files that others made, read one at a time, so that little is in memory.

A few bytes of a Parquet file can stand for any number of rows, and for a content of any length in
each of them. So the headers of all pages of the columns that are read are checked first
(rib.data.parquet_pages), and a batch has one row: those of a dictionary page may each be as long as
the page.
"""

import contextlib
import mmap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.config.values import nearest, show
from rib.data.archives import CHUNK, Unpacked
from rib.data.parquet_pages import pages_of_chunk, refuse_other_rows

MAGIC = b"PAR1"  # first and last bytes of a file
END = 8  # bytes after the footer: its length and the magic ones
LARGEST_FOOTER = 16 << 20  # bytes; that of a shard with 10,000 groups of rows has a few million
MOST_ENTRIES = 100_000  # of a list in the footer: columns, groups of rows
# Bytes to which the columns that are read may unpack in a group of rows. Pages are unpacked one at
# a time, but a group may have a single one.
LARGEST_GROUP = 2 << 30


@contextlib.contextmanager
def opened_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, of which only the footer is read.

    Any error of reading in this context becomes one that explains the damage.

    Raises:
        UserError: The file is truncated, damaged or no Parquet file, its footer is too large, or it
            states more rows than the file has bytes.
    """
    try:
        _refuse_other_file(path)
        with pq.ParquetFile(
            path,
            buffer_size=CHUNK,  # otherwise all of a column in a group of rows would be read at once
            pre_buffer=False,
            thrift_container_size_limit=MOST_ENTRIES,
            thrift_string_size_limit=LARGEST_FOOTER,
        ) as parquet:
            if parquet.metadata.num_rows > path.stat().st_size:
                raise ValueError(f"it states {parquet.metadata.num_rows} rows, more than its bytes")
            yield parquet
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Arrow raises many types on damaged input
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} can't be read as a Parquet file ({reason[:300]}); it is damaged or written in "
            "an unusual way: fetch it again, or write it with pyarrow's defaults."
        ) from error


def _refuse_other_file(path: Path) -> None:
    """Raise a ValueError if a file has not the ends of a Parquet file, or too large a footer."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        first_bytes = file.read(len(MAGIC))
        file.seek(max(0, size - END))
        last_bytes = file.read(END)
    if first_bytes != MAGIC or not last_bytes.endswith(MAGIC):
        raise ValueError("it does not begin and end as one")
    size_of_footer = int.from_bytes(last_bytes[:4], "little")
    if size_of_footer > LARGEST_FOOTER:
        raise ValueError(
            f"its footer has {in_bytes(size_of_footer)}, and the limit is "
            f"{in_bytes(LARGEST_FOOTER)}"
        )


def stored_column(parquet: pq.ParquetFile, column: str, path: Path) -> int:
    """Number of the stored column with a name, which must not be a list or structure.

    Args:
        column: a name, or that of a structure and of one of its fields, joined by a point.

    Raises:
        UserError: There is no such column, it is nested, or several have its name.
    """
    schema = parquet.metadata.schema
    stored_paths = [schema.column(number).path for number in range(len(schema))]
    numbers = []
    for number, stored_path in enumerate(stored_paths):
        # pyarrow reads all columns with this beginning if it is asked for one.
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
    return numbers[0]


def refuse_large_parquet(parquet: pq.ParquetFile, columns: Collection[int], path: Path) -> None:
    """Refuse a file of which some columns would unpack to too many bytes, before they are read.

    Args:
        columns: numbers of the stored columns, none of which is a list.

    Raises:
        UserError: A group of rows is too large, or all of them are for a file of this size.
        ValueError: The pages are not what the footer says, or may take any amount of memory.
    """
    footer = parquet.metadata
    refuse_other_rows(path, footer, columns)
    if footer.num_rows == 0:
        return
    unpacked = Unpacked(path, path.stat().st_size)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            size_of_group = 0
            for column in columns:
                for page in pages_of_chunk(path, content, group.column(column), group.num_rows):
                    unpacked.add(page.unpacked_size)
                    size_of_group += page.unpacked_size
            if size_of_group > LARGEST_GROUP:
                raise UserError(
                    f"{path}: its group of rows {number} unpacks to {in_bytes(size_of_group)}, and "
                    f"the limit is {in_bytes(LARGEST_GROUP)}; write the file again with fewer rows "
                    "in a group."
                )


def rows_of_group(
    parquet: pq.ParquetFile, group: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of a group, each as a batch of its own.

    Args:
        columns: names, see `stored_column`. Of a structure the batch has the named field alone.
    """
    yield from parquet.iter_batches(1, row_groups=[group], columns=columns, use_threads=False)
