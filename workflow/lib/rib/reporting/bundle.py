"""A bundle: one file with the tables of a run and all that they follow from, for others to check and compare. No weights.

It is a zip of a part of the project, not compressed: `bundle.json` (version, resolved configuration, order of the rows), the
provenance records of the run's jobs, and under their own paths rows, indexes, classes, splits, tables and the page. The same
files give the same bytes.
"""

import csv
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from rib.analysis import counts, row_schema
from rib.analysis.row_schema import TEXT, WHOLE
from rib.base.errors import UserError
from rib.base.text import FORMULA, presentable
from rib.config.run import RUN_COLUMNS
from rib.data.archives import archive_members
from rib.records import provenance
from rib.reporting.foreign_parquet import Expected, Size, checked_size

VERSION = 2  # from 2 on, accuracy.csv has roles, and ranking.csv differences from a reference
FACTS, RECORDS = "bundle.json", "provenance.jsonl"
JOBS = (
    "compute_metrics",
    "compare_methods",
    "write_page",
)  # rules of the tables, of the comparison and of the page
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
MOST = 10**10  # bootstrap replicates times images
MOST_COLUMNS = 1000  # of a CSV table; pandas takes a millisecond for each
# Bytes in memory of all tables in a bundle, for each of its bytes. It is 12 for the rows of a curve of
# 11 states on 50,000 images, and 54 if all its names have a hundred letters.
DENSEST = 100
ROWS = Expected(
    kinds={name: column.kind for name, column in row_schema.COLUMNS.items()},
    needed=frozenset([*RUN_COLUMNS, *counts.COLUMNS]),
)
INDEX = Expected(
    kinds={"image_id": TEXT, "label": WHOLE, "source_id": TEXT, "object_id": TEXT},
    needed=frozenset(["image_id", "label", "source_id", "object_id"]),
)
SPLIT = Expected(
    kinds={"source_id": TEXT, "part": TEXT, "images": WHOLE},
    needed=frozenset(["source_id", "part", "images"]),
)


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
    *,
    rows: Sequence[Path],
    more: Sequence[Path],
    records: Iterable[str],
    config: Mapping,
    bundle: Path,
) -> None:
    """Write a bundle of rows, in the order in which tables were computed from them, and more files.

    `records` are paths of the records of the run's jobs; a missing one is replaced by the gathered record.
    """
    facts = {"version": VERSION, "config": config, "rows": list(map(str, rows))}
    lines = provenance.as_lines(
        {path: [record] for path, record in provenance.of_jobs(records).items()}
    )
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
    left_of_tables = Size(rows=left, size=DENSEST * left)
    first = {file: read() for file, read in archive_members(path, (FACTS, RECORDS), largest=left)}
    facts = json.loads(first.get(FACTS, b"{}"))
    if (version := facts.get("version")) != VERSION:
        what = f"a bundle of version {version!r:.20}" if FACTS in first else "not a bundle"
        raise UserError(
            f"{path} is {what}; make one of version {VERSION}, by `snakemake bundle` of this code."
        )
    try:
        records = [record for [record] in provenance.from_lines(first[RECORDS].decode()).values()]
    except UserError:
        raise ValueError(f"a line of {RECORDS} {provenance.DAMAGED}") from None
    made = {file: digest for record in records for file, digest in record["outputs"].items()}
    for file, digest in (
        pair for record in records for key in ("inputs", "outputs") for pair in record[key].items()
    ):
        if made.get(file, digest) != digest:
            raise ValueError(f"its records contradict each other about {file}")
    metrics, comparison, page = (
        next(record for record in records if record["rule"] == rule) for rule in JOBS
    )
    settings, about = metrics["cfg"], page["cfg"]["about"]
    labels = [
        entry["label"]
        for kind in ("models", "methods", "datasets")
        for entry in about[kind].values()
    ]
    labels += [about["family"]["title"], settings["conditions"]]
    if not all(presentable(text) and not FORMULA.match(text) for text in labels):
        raise ValueError("a label has markup or begins as a formula")
    if about["config"] != facts["config"] or not 0 < settings["confidence"] < 1:
        raise ValueError(
            "the configuration is not that of the page, or has a confidence out of bounds"
        )
    seen = set()
    for file, read in archive_members(path, largest=left):
        data = read()
        left -= len(data)
        if file in seen or left < 0:
            raise ValueError(
                f"{file[:200]!r} is there twice, or all files are larger than the bundle"
            )
        seen.add(file)
        if file not in first:
            if hashlib.sha256(data).hexdigest() != made.get(file):
                raise ValueError(f"{file[:200]!r} is not what its record names")
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
            if file.endswith(".parquet"):
                left_of_tables -= checked_size(folder / file, _expected(file), left_of_tables)
            elif file.endswith(".csv"):
                _refuse_hostile_table(folder / file)
    claims = [
        file
        for record in (metrics, comparison)
        for file in record["outputs"]
        if file.endswith(".csv")
    ]
    if lost := [file for file in (*metrics["inputs"], *claims, *facts["rows"]) if file not in seen]:
        raise ValueError(f"{lost[0]!r} is missing")
    if unchecked := [file for file in facts["rows"] if not file.endswith(".parquet")]:
        raise ValueError(f"{unchecked[0][:200]!r} is no Parquet file")
    rows, claims = ([folder / file for file in files] for files in (facts["rows"], claims))
    indexes = {
        file.parts[-3]: file for file in sorted(folder.glob("results/*/prepare/*/*/index.parquet"))
    }
    images = sum(pq.read_metadata(file).num_rows for file in indexes.values())
    if not 0 < settings["replicates"] <= MOST / max(1, images):
        raise ValueError("the number of bootstrap replicates is out of bounds")
    return Bundle(name, folder, facts["config"], rows, indexes, claims, settings, about, records)


def _expected(file: str) -> Expected:
    """What the columns of a Parquet file of a bundle must be, by its path in the project."""
    if file.endswith("/index.parquet"):
        return INDEX
    # results/<family>/<protocol>/split/<dataset>/<name>.parquet
    return SPLIT if Path(file).parts[-3:-2] == ("split",) else ROWS


def _refuse_hostile_table(file: Path) -> None:
    """Raise a ValueError if a CSV file has too many columns, or a cell that begins as a formula."""
    with open(file, newline="", encoding="utf-8") as lines:
        widest = max((len(cells) for cells in csv.reader(lines)), default=0)
    if widest > MOST_COLUMNS:
        raise ValueError(f"{file.name} has {widest} columns, and the limit is {MOST_COLUMNS}")
    for column, texts in pd.read_csv(file, dtype=str, keep_default_na=False).items():
        words = texts[pd.to_numeric(texts, errors="coerce").isna()]
        if FORMULA.match(column) or words.str.match(FORMULA).any():
            raise ValueError(f"a cell of {file.name} begins as a formula")
