"""Parquet files of photos as the hub has them, and files that take more memory than they state."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PHOTO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` stores a photo
END = 8  # bytes after the footer: its length and a mark


def write_photos(
    path: Path, columns: dict, names: dict[str, list[str]] | None = None, **options
) -> Path:
    """Write a file as the library `datasets` does; gives its path.

    Args:
        columns: values by column, in this order; lists of bytes become structures with a path.
        names: what whole numbers stand for, by column.
        options: of pyarrow's writer.
    """
    arrays = {}
    for column, values in columns.items():
        if isinstance(values, list) and values and isinstance(values[0], bytes):
            photos = [{"bytes": encoded, "path": f"{i}.jpg"} for i, encoded in enumerate(values)]
            values = pa.array(photos, PHOTO)
        arrays[column] = values
    table = pa.table(arrays)
    if names is not None:
        features = {
            column: {"names": texts, "_type": "ClassLabel"} for column, texts in names.items()
        }
        facts = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
    pq.write_table(table, path, **options)
    return path


def repeated_by_deltas(table: pa.Table, column: str) -> bytes:
    """A file of which each text in a column is stored as what differs from the one before."""
    buffer = io.BytesIO()
    encodings = {column: "DELTA_BYTE_ARRAY"}
    pq.write_table(
        table, buffer, use_dictionary=False, column_encoding=encodings, compression="zstd"
    )
    return buffer.getvalue()


def understated(data: bytes) -> bytes:
    """A file whose footer states that each column, and each group of rows, unpacks to a byte."""
    facts = pq.read_metadata(io.BytesIO(data))
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    sizes = {group.total_byte_size for group in groups} | {
        chunk.total_uncompressed_size for chunk in chunks
    }
    return _with_footer(data, {size: 1 for size in sizes if size >= 1 << 14})


def with_other_rows(data: bytes, rows: int, stated: int) -> bytes:
    """A file of which the footer states another number of rows.

    Columns have as many values as before.
    """
    footer_start = len(data) - END - int.from_bytes(data[-END:-4], "little")
    true_number = _varint(rows)
    # The first field of the footer with this number is that of the file's rows.
    start = data.index(true_number, footer_start)
    end = start + len(true_number)
    return data[:start] + _varint(stated, len(true_number)) + data[end:]


def _with_footer(data: bytes, changed: dict[int, int]) -> bytes:
    """A file in whose footer some numbers are replaced by others."""
    start = len(data) - END - int.from_bytes(data[-END:-4], "little")
    footer = data[start:]
    for old, new in changed.items():
        assert _varint(old) in footer
        footer = footer.replace(_varint(old), _varint(new, len(_varint(old))))
    return data[:start] + footer


def _varint(number: int, length: int = 1) -> bytes:
    """A whole number from 0 as Thrift's compact protocol has it, in at least so many bytes."""
    remaining = 2 * number
    digits = []
    while remaining or len(digits) < length:
        digits.append(remaining & 127)
        remaining >>= 7
    return bytes([*(digit | 128 for digit in digits[:-1]), digits[-1]])
