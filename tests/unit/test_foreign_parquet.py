"""Parquet files that others made.

They are refused before they take more memory than the limit; honest ones are not.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rib.analysis.row_schema import NUMBER, TEXT, WHOLE
from rib.data import parquet_pages
from rib.evaluation.evaluate import CONSTANT, ENCODING, FLOATS
from rib.reporting.bundle import DENSEST, ROWS
from rib.reporting.foreign_parquet import Expected, Size, checked_size
from tiny.fuzz import fuzzed
from tiny.parquet import repeated_by_deltas, understated, with_other_rows

pytestmark = pytest.mark.thorough

ROWS_OF_TEXT = 120
LONG = "r" * (4 << 20)
COLUMNS = Expected({"name": TEXT, "row": WHOLE, "score": NUMBER}, frozenset(["name", "row"]))
attack = pytest.mark.attack("memory")


def table(**columns):
    some = {"name": ["a"] * ROWS_OF_TEXT, "row": np.arange(ROWS_OF_TEXT)}
    return pa.table({**some, **columns})


def written(columns, **options):
    """Bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(columns, buffer, compression="zstd", **options)
    return buffer.getvalue()


def refused(folder, data, most, expected=COLUMNS):
    path = folder / "rows.parquet"
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        checked_size(path, expected, most)
    return str(error.value)


def test_the_size_of_a_table_is_that_of_its_numbers_and_of_every_text(tmp_path):
    path = tmp_path / "rows.parquet"
    columns = table(name=["ab", None, "c"] * 40, score=np.zeros(ROWS_OF_TEXT, np.float16))
    path.write_bytes(written(columns, row_group_size=50))
    texts = 3 * 40
    numbers = ROWS_OF_TEXT * (8 + 8 + 2)  # a text has a place of 8 bytes, as int64 has
    assert checked_size(path, COLUMNS, Size(1000, 10**6)) == Size(ROWS_OF_TEXT, numbers + texts)


@pytest.mark.parametrize("read", [pa.Table.from_pandas, lambda frame: pa.table(dict(frame))])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_files_of_pandas_and_of_either_version_of_pages_are_read(
    tmp_path, read, version, compression
):
    frame = pd.DataFrame(
        {"name": pd.Categorical(["b", "a", "b"]), "row": [0, 1, 2], "score": [0.5, None, 1]}
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(read(frame), path, data_page_version=version, compression=compression)
    assert checked_size(path, COLUMNS, Size(3, 10**6)).rows == 3


@pytest.mark.parametrize("letters", [10, 100])
def test_rows_as_they_are_written_are_within_the_limits_of_a_bundle(tmp_path, letters):
    """A curve of 11 states on 5,000 images, of which four of five are right."""
    rng = np.random.default_rng(0)
    rows = 55_000
    texts = ["model", "target", "method", "size", "dataset"]
    columns = {
        name: pa.array([name.ljust(letters, "x")] * rows).dictionary_encode() for name in texts
    }
    columns |= {
        "seed": pa.array([0] * rows, pa.int32()),
        "alpha": pa.array(np.repeat(np.linspace(0, 1, 11), 5000)),
    }
    columns |= {"row": pa.array(np.tile(np.arange(5000, dtype=np.int32), 11))}
    columns |= {"prediction": pa.array(rng.integers(0, 1000, rows), pa.int16())}
    columns |= {
        "rank": pa.array((rng.random(rows) < 0.2) * rng.integers(0, 1000, rows), pa.int16())
    }
    columns |= {name: pa.array(rng.random(rows).astype(np.float16)) for name in FLOATS}
    assert {*columns} == {*CONSTANT, "row", "prediction", "rank", *FLOATS}
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path, **ENCODING)
    size = path.stat().st_size
    assert checked_size(path, ROWS, Size(size // 8, DENSEST * size)).rows == rows


BOMBS = {
    "a text that each row repeats": lambda: written(table(name=[LONG] * ROWS_OF_TEXT)),
    "texts of which each repeats the one before": lambda: repeated_by_deltas(
        table(name=[LONG] * ROWS_OF_TEXT), "name"
    ),
    "a long text that the footer understates": lambda: understated(
        written(table(name=[16 * LONG] + ["a"] * (ROWS_OF_TEXT - 1)))
    ),
    "many rows": lambda: written(
        pa.table({"name": ["a"] * 10**6, "row": np.zeros(10**6, np.int64)})
    ),
}


@attack
@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_small_file_takes_little_memory_before_it_is_refused(tmp_path, arrow_peak, make):
    data = make()
    before = arrow_peak()
    said = refused(tmp_path, data, Size(rows=100_000, size=16 << 20))
    assert "the limit is" in said or "any size" in said
    assert arrow_peak() <= max(before, 24 << 20)


@attack
def test_a_footer_that_contradicts_its_columns_is_refused(tmp_path):
    data = with_other_rows(written(table()), ROWS_OF_TEXT, 7)
    assert "several numbers of rows" in refused(tmp_path, data, Size(1000, 10**6))


OTHER_COLUMNS = {
    "a list": ({"name": [["a"]] * ROWS_OF_TEXT}, "'name' of another type"),
    "a structure": ({"more": [{"a": 1}] * ROWS_OF_TEXT}, "'more' of another type"),
    "bytes": ({"more": [b"a"] * ROWS_OF_TEXT}, "'more' of another type"),
    "a text in place of a number": (
        {"row": ["a"] * ROWS_OF_TEXT},
        "'row' is a text, not a whole number",
    ),
    "a number in place of a text": (
        {"name": [1] * ROWS_OF_TEXT},
        "'name' is a whole number, not a text",
    ),
    "a fraction in place of a whole number": (
        {"row": [0.5] * ROWS_OF_TEXT},
        "'row' is a number, not a whole number",
    ),
}


@attack
@pytest.mark.parametrize(("columns", "said"), OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_columns_of_other_types_are_refused_before_a_value_is_read(
    tmp_path, monkeypatch, columns, said
):
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *_, **__: pytest.fail("a value was read")
    )
    assert said in refused(tmp_path, written(table(**columns)), Size(1000, 10**6))


def test_a_column_that_is_not_there_is_named(tmp_path):
    assert "lacks the column 'row'" in refused(
        tmp_path, written(table().drop(["row"])), Size(1000, 10**6)
    )


@attack
def test_a_dictionary_of_more_values_than_bytes_is_refused():
    """A reader allocates 16 bytes for each value before it reads one."""
    header = {
        parquet_pages.KIND: parquet_pages.DICTIONARY_PAGE,
        parquet_pages.UNPACKED_SIZE: 100,
        parquet_pages.PACKED_SIZE: 100,
        7: {parquet_pages.VALUES: 2**31 - 1, 2: 0},
    }
    with pytest.raises(ValueError, match="2147483647 values in 100 bytes"):
        parquet_pages.page_of(Path("rows.parquet"), header)


@attack
@pytest.mark.parametrize(
    "header",
    [
        # the size is there twice, the second time by its number
        b"\x15\x04\x15\x80\x80\x80\x08\x05\x04\x02\x00",
        b"\x1c" * 100,  # structures in structures
        b"\x15" + b"\xff" * 100,  # a number without end
        b"\x15\x04",  # cut off
        b"\x1b\x00\x00",  # a map
    ],
)
def test_a_header_that_readers_might_understand_in_two_ways_is_refused(header):
    with pytest.raises((ValueError, IndexError)):
        parquet_pages.read_struct(header, 0, parquet_pages.DEEPEST)


@attack
@fuzzed(300)
@given(st.integers(4, 400), st.binary(min_size=1, max_size=6))
def test_any_damage_to_pages_is_read_or_refused(tmp_path_factory, place, noise):
    data = bytearray(written(table(score=np.zeros(ROWS_OF_TEXT)), use_dictionary=["name"]))
    data[place : place + len(noise)] = noise
    path = tmp_path_factory.mktemp("damaged") / "rows.parquet"
    path.write_bytes(data)
    try:
        assert checked_size(path, COLUMNS, Size(1000, 10**6)).rows == ROWS_OF_TEXT
    except (ValueError, OSError) as error:  # the second from Arrow
        assert str(error)
