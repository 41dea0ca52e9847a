"""Parquet files of photos as the hub has them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PHOTO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` stores a photo


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
