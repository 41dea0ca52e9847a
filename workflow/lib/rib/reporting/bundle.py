"""A bundle: one file with the tables of a run and all that they follow from, for others to check and compare. No weights.

It is a zip of a part of the project, not compressed: `bundle.json` (version, resolved configuration, order of the rows), the
provenance records of the run's jobs, and under their own paths rows, indexes, classes, splits, tables and the page. The same
files give the same bytes.
"""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.text import FORMULA, presentable
from rib.data.archives import archive_members
from rib.records import provenance

VERSION = 2  # from 2 on, accuracy.csv has roles, and ranking.csv differences from a reference
FACTS, RECORDS = "bundle.json", "provenance.jsonl"
JOBS = ("compute_metrics", "compare_methods", "write_page")  # rules of the tables, of the comparison and of the page
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
MOST = 10**10  # bootstrap replicates times images
DENSEST = 1000  # bytes that a byte of a Parquet file may unpack to; each row takes a byte or more


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle, whose files are those of its records."""

    name: str
    folder: Path  # of its files, under the paths of their project
    config: Mapping
    rows: list[Path]
    indexes: dict[str, Path]  # by dataset
    claims: list[Path]  # CSV tables
    tables: Mapping  # settings of the job that computed the tables
    about: Mapping  # what its page says about the choices of the run
    records: list[dict]


def write_bundle(
    *, rows: Sequence[Path], more: Sequence[Path], records: Iterable[str], config: Mapping, bundle: Path
) -> None:
    """Write a bundle of rows, in the order in which tables were computed from them, and more files.

    `records` are paths of the records of the run's jobs; a missing one is replaced by the gathered record.
    """
    facts = {"version": VERSION, "config": config, "rows": list(map(str, rows))}
    lines = provenance.as_lines({path: [record] for path, record in provenance.of_jobs(records).items()})
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, text in ((FACTS, json.dumps(facts, indent=1)), (RECORDS, lines)):
            archive.writestr(zipfile.ZipInfo(name), text)  # of 1980, as all
        for path in sorted({*rows, *more}, key=str):
            entry = zipfile.ZipInfo(str(path))
            entry.file_size = path.stat().st_size
            with open(path, "rb") as file, archive.open(entry, "w") as packed:
                shutil.copyfileobj(file, packed)


def open_bundle(path: Path, name: str, folder: Path) -> Bundle:
    """Unpack a bundle into an empty folder; a UserError or ValueError if it is of another version, not whole, or hostile.

    Every file must be an output that a record names, with its hash, so nothing else is written. Nothing in a bundle is
    compressed: a file, or all files together, are never larger than the bundle.
    """
    left = path.stat().st_size
    first = {file: read() for file, read in archive_members(path, (FACTS, RECORDS), largest=left)}
    facts = json.loads(first.get(FACTS, b"{}"))
    if (version := facts.get("version")) != VERSION:
        what = f"a bundle of version {version!r:.20}" if FACTS in first else "not a bundle"
        raise UserError(f"{path} is {what}; make one of version {VERSION}, by `snakemake bundle` of this code.")
    try:
        records = [record for [record] in provenance.from_lines(first[RECORDS].decode()).values()]
    except UserError:
        raise ValueError(f"a line of {RECORDS} {provenance.DAMAGED}") from None
    made = {file: digest for record in records for file, digest in record["outputs"].items()}
    for file, digest in (pair for record in records for key in ("inputs", "outputs") for pair in record[key].items()):
        if made.get(file, digest) != digest:
            raise ValueError(f"its records contradict each other about {file}")
    metrics, comparison, page = (next(record for record in records if record["rule"] == rule) for rule in JOBS)
    settings, about = metrics["cfg"], page["cfg"]["about"]
    labels = [entry["label"] for kind in ("models", "methods", "datasets") for entry in about[kind].values()]
    labels += [about["family"]["title"], settings["conditions"]]
    if not all(presentable(text) and not FORMULA.match(text) for text in labels):
        raise ValueError("a label has markup or begins as a formula")
    if about["config"] != facts["config"] or not 0 < settings["confidence"] < 1:
        raise ValueError("the configuration is not that of the page, or has a confidence out of bounds")
    seen = set()
    for file, read in archive_members(path, largest=left):
        data = read()
        left -= len(data)
        if file in seen or left < 0:
            raise ValueError(f"{file[:200]!r} is there twice, or all files are larger than the bundle")
        seen.add(file)
        if file not in first:
            if hashlib.sha256(data).hexdigest() != made.get(file):
                raise ValueError(f"{file[:200]!r} is not what its record names")
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
            _refuse_hostile(folder / file, len(data))
    claims = [file for record in (metrics, comparison) for file in record["outputs"] if file.endswith(".csv")]
    if lost := [file for file in (*metrics["inputs"], *claims, *facts["rows"]) if file not in seen]:
        raise ValueError(f"{lost[0]!r} is missing")
    rows, claims = ([folder / file for file in files] for files in (facts["rows"], claims))
    indexes = {file.parts[-3]: file for file in sorted(folder.glob("results/*/prepare/*/*/index.parquet"))}
    images = sum(pq.read_metadata(file).num_rows for file in indexes.values())
    if not 0 < settings["replicates"] <= MOST / max(1, images):
        raise ValueError("the number of bootstrap replicates is out of bounds")
    return Bundle(name, folder, facts["config"], rows, indexes, claims, settings, about, records)


def _refuse_hostile(file: Path, size: int) -> None:
    """Raise a ValueError if a Parquet file states more than it can hold, or a cell of a CSV file begins as a formula."""
    if file.suffix == ".parquet":
        facts = pq.read_metadata(file)
        unpacked = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        if facts.num_rows > size or unpacked > DENSEST * size:
            raise ValueError(f"{file.name} of {size} bytes unpacks to {facts.num_rows} rows")
        schema = pq.read_schema(file)
        kinds = {field.name: field.type for field in schema if not pa.types.is_primitive(field.type)}
        for name, kind in kinds.items():
            if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in (pa.string(), pa.large_string()):
                raise ValueError(f"{file.name} has the column {name[:50]!r} of another type than numbers and texts")
        # A text that is repeated takes no memory here.
        table = pq.read_table(file, columns=[*kinds], read_dictionary=[*kinds])
        for part in (part for column in table.columns for part in column.chunks):
            longest = pc.max(pc.binary_length(part.dictionary)).as_py() or 0
            if longest * facts.num_rows > DENSEST * size:
                raise ValueError(f"{file.name} of {size} bytes unpacks to texts of {longest} bytes in each row")
    elif file.suffix == ".csv":
        for column, texts in pd.read_csv(file, dtype=str, keep_default_na=False).items():
            words = texts[pd.to_numeric(texts, errors="coerce").isna()]
            if FORMULA.match(column) or words.str.match(FORMULA).any():
                raise ValueError(f"a cell of {file.name} begins as a formula")
