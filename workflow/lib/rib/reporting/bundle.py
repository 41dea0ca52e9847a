"""A bundle: one file with the tables of a run and all that they follow from. No weights.

Others check and compare it. It is a zip of a part of the project, not compressed: `bundle.json`
(version, resolved configuration, order of the rows), the provenance records of the run's jobs, and
under their own paths rows, indexes, classes, splits, tables and the page. The same files give the
same bytes.
"""

import csv
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from rib.analysis import counts, row_schema
from rib.analysis.row_schema import TEXT, WHOLE
from rib.analysis.settings import GridTableSettings
from rib.base.errors import UserError
from rib.base.settings import from_params
from rib.base.text import FORMULA, presentable
from rib.config.run import RUN_COLUMNS
from rib.data.archives import archive_members
from rib.records import provenance
from rib.reporting.foreign_parquet import Expected, Size, checked_size

VERSION = 3
"""Version of the format of bundles.

Raise it when an entry of `bundle.json`, a file of a bundle or a column of its tables gets another
name, type or meaning, or when a setting does that is read from its records, which are those of the
jobs that compute tables and write the page. A bundle of another version is refused then, and has to
be written again. The records in it have a version of their own
(rib.records.provenance.FORMAT_VERSION).

From 2 on, accuracy.csv has roles, and ranking.csv differences from a reference; from 3 on, records
have a version.
"""
FACTS = "bundle.json"
RECORDS = "provenance.jsonl"
# Rules of the jobs that a bundle must have records of.
TABLES_RULE = "compute_metrics"
COMPARISON_RULE = "compare_methods"
PAGE_RULE = "write_page"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
MOST = 10**10  # bootstrap replicates times images
MOST_COLUMNS = 1000  # of a CSV table; pandas takes a millisecond for each
# Bytes in memory of all tables in a bundle, for each of its bytes. It is 12 for the rows of a curve
# of 11 states on 50,000 images, and 54 if all its names have a hundred letters.
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
    config: Mapping[str, Any]
    rows: list[Path]
    indexes: dict[str, Path]  # by dataset
    claims: list[Path]  # CSV tables
    tables: GridTableSettings  # of the job that computed the tables
    about: Mapping[str, Any]  # what its page says about the choices of the run
    records: list[dict[str, Any]]


def write_bundle(
    *,
    rows: Sequence[Path],
    more: Sequence[Path],
    records: Iterable[str],
    config: Mapping[str, Any],
    bundle: Path,
) -> None:
    """Write a bundle.

    Args:
        rows: files of rows, in the order in which tables were computed from them.
        more: all other files.
        records: paths of the records of the run's jobs; a gathered record replaces a missing one.
        config: the resolved configuration.
        bundle: the zip to write.
    """
    facts = {"version": VERSION, "config": config, "rows": [str(path) for path in rows]}
    records_by_path = {path: [record] for path, record in provenance.of_jobs(records).items()}
    with zipfile.ZipFile(bundle, "w") as archive:
        # Entries are of 1980, so that the same files give the same bytes.
        archive.writestr(zipfile.ZipInfo(FACTS), json.dumps(facts, indent=1))
        archive.writestr(zipfile.ZipInfo(RECORDS), provenance.as_lines(records_by_path))
        for path in sorted({*rows, *more}, key=str):
            entry = zipfile.ZipInfo(str(path))
            entry.file_size = path.stat().st_size
            with open(path, "rb") as file, archive.open(entry, "w") as packed:
                shutil.copyfileobj(file, packed)


def open_bundle(path: Path, name: str, folder: Path) -> Bundle:
    """Unpack a bundle into an empty folder.

    Every file must be an output that a record names, with its hash, so nothing else is written.
    Nothing in a bundle is compressed: a file, or all files together, are never larger than the
    bundle.

    Args:
        path: the bundle, a zip.
        name: how it is called in tables and on the page.
        folder: an empty folder.

    Raises:
        UserError: it, or a record in it, is of another version, or the settings of its tables are
            not those of a job.
        ValueError: it is not whole, or hostile.
    """
    facts, records = _read_facts_and_records(path)
    digests = _digests_of_outputs(records)
    tables_record = _record_of(TABLES_RULE, records)
    comparison_record = _record_of(COMPARISON_RULE, records)
    tables_settings = from_params(GridTableSettings, tables_record["cfg"])
    about = _record_of(PAGE_RULE, records)["cfg"]["about"]
    _refuse_hostile_labels(about, tables_settings)
    if about["config"] != facts["config"] or not 0 < tables_settings.ri.confidence < 1:
        raise ValueError(
            "the configuration is not that of the page, or has a confidence out of bounds"
        )
    unpacked = _unpack(path, folder, digests)
    outputs = [*tables_record["outputs"], *comparison_record["outputs"]]
    claims = [file for file in outputs if file.endswith(".csv")]
    _refuse_missing_files([*tables_record["inputs"], *claims], facts["rows"], unpacked)
    indexes = {}
    for index in sorted(folder.glob("results/*/prepare/*/*/index.parquet")):
        # results/<family>/prepare/<dataset>/<geometry>/index.parquet
        dataset = index.parent.parent.name
        indexes[dataset] = index
    images = sum(pq.read_metadata(index).num_rows for index in indexes.values())
    if not 0 < tables_settings.ri.replicates <= MOST / max(1, images):
        raise ValueError("the number of bootstrap replicates is out of bounds")
    return Bundle(
        name=name,
        folder=folder,
        config=facts["config"],
        rows=[folder / file for file in facts["rows"]],
        indexes=indexes,
        claims=[folder / file for file in claims],
        tables=tables_settings,
        about=about,
        records=records,
    )


def _refuse_missing_files(
    needed: Sequence[str], rows: Sequence[str], unpacked: Collection[str]
) -> None:
    """Raise a ValueError if a needed file or one of rows is missing, or rows are no Parquet file.

    Args:
        needed: names of files that a bundle must have.
        rows: names of its files of rows.
        unpacked: names of the files that it has.
    """
    for file in [*needed, *rows]:
        if file not in unpacked:
            raise ValueError(f"{file!r} is missing")
    for file in rows:
        if not file.endswith(".parquet"):
            raise ValueError(f"{file[:200]!r} is no Parquet file")


def _read_facts_and_records(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The contents of a bundle's bundle.json and provenance.jsonl.

    Raises:
        UserError: the file is no bundle, or it or a record in it is of another version.
        ValueError: a record was edited or damaged, or two are of one job.
    """
    contents = {}
    for file, read in archive_members(path, (FACTS, RECORDS), largest=path.stat().st_size):
        contents[file] = read()
    facts = json.loads(contents.get(FACTS, b"{}"))
    version = facts.get("version")
    if version != VERSION:
        description = "not a bundle"
        if FACTS in contents:
            description = f"a bundle of version {version!r:.20}"
        raise UserError(
            f"{path} is {description}; "
            f"make one of version {VERSION}, by `snakemake bundle` of this code."
        )
    try:
        records_by_path = provenance.from_lines(contents[RECORDS].decode())
    except provenance.OtherVersionError as error:
        raise UserError(
            f"{path}: {RECORDS}, {error}; make the bundle again, by `snakemake bundle` of this "
            "code."
        ) from None
    except UserError:
        raise ValueError(f"a line of {RECORDS} {provenance.DAMAGED}") from None
    records = []
    for records_of_job in records_by_path.values():
        (record,) = records_of_job  # a ValueError if there are two
        records.append(record)
    return facts, records


def _digests_of_outputs(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 of the files that jobs wrote.

    Raises a ValueError if two records state different ones for such a file. The message goes on
    from the name of the bundle.
    """
    digests: dict[str, str] = {}
    for record in records:
        digests.update(record["outputs"])
    # Only now, since the record of a job may precede those of the jobs that wrote its inputs.
    for record in records:
        for files in (record["inputs"], record["outputs"]):
            for file, digest in files.items():
                if file in digests and digests[file] != digest:
                    raise ValueError(f"its records contradict each other about {file}")
    return digests


def _record_of(rule: str, records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first record of a job of a rule."""
    for record in records:
        if record["rule"] == rule:
            return record
    raise ValueError(f"it has no record of {rule}")


def _refuse_hostile_labels(about: Mapping[str, Any], tables_settings: GridTableSettings) -> None:
    """Raise a ValueError if a label could do harm where it is shown; a bundle may be a stranger's.

    Labels are shown in pages, where markup such as a script would take effect, and in CSV tables,
    where a spreadsheet would compute a cell that begins as a formula.
    """
    labels = [about["family"]["title"], tables_settings.conditions]
    for entries in (about["models"], about["methods"], about["datasets"]):
        labels += [entry["label"] for entry in entries.values()]
    for label in labels:
        if not presentable(label) or FORMULA.match(label):
            raise ValueError("a label has markup or begins as a formula")


def _unpack(path: Path, folder: Path, digests: Mapping[str, str]) -> Collection[str]:
    """Unpack the files of a bundle into a folder, and return the names of all its members.

    Args:
        path: the bundle.
        folder: an empty folder.
        digests: SHA-256 of each file, as its record states it.

    Raises:
        ValueError: a file is not what its record states, is there twice, or unpacks to more than
            the bundle may hold.
    """
    bytes_left = path.stat().st_size
    limit_of_tables = Size(rows=bytes_left, size=DENSEST * bytes_left)
    members = set()
    for file, read in archive_members(path, largest=bytes_left):
        content = read()
        bytes_left -= len(content)
        if file in members or bytes_left < 0:
            raise ValueError(
                f"{file[:200]!r} is there twice, or all files are larger than the bundle"
            )
        members.add(file)
        if file in (FACTS, RECORDS):
            continue
        if hashlib.sha256(content).hexdigest() != digests.get(file):
            raise ValueError(f"{file[:200]!r} is not what its record names")
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
        if file.endswith(".parquet"):
            limit_of_tables -= checked_size(folder / file, _expected(file), limit_of_tables)
        elif file.endswith(".csv"):
            _refuse_hostile_table(folder / file)
    return members


def _expected(file: str) -> Expected:
    """What the columns of a Parquet file of a bundle must be, by its path in the project.

    An example of each kind, by the end of its path: prepare/noto/224/index.parquet,
    split/noto/<name>.parquet and evaluate/net/noto/ft/all/0/emoji.parquet, which has rows.
    """
    if file.endswith("/index.parquet"):
        return INDEX
    folder_of_split = Path(file).parent.parent.name
    if folder_of_split == "split":
        return SPLIT
    return ROWS


def _refuse_hostile_table(file: Path) -> None:
    """Raise a ValueError if a CSV file has too many columns, or a cell that begins as a formula.

    A spreadsheet would compute such a cell; numbers such as -1 are none.
    """
    most_columns = 0
    with open(file, newline="", encoding="utf-8") as lines:
        for cells_of_line in csv.reader(lines):
            most_columns = max(most_columns, len(cells_of_line))
    if most_columns > MOST_COLUMNS:
        raise ValueError(f"{file.name} has {most_columns} columns, and the limit is {MOST_COLUMNS}")
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column, cells in table.items():
        is_number = pd.to_numeric(cells, errors="coerce").notna()
        texts = cells[~is_number]
        if FORMULA.match(str(column)) or texts.str.match(FORMULA).any():
            raise ValueError(f"a cell of {file.name} begins as a formula")
