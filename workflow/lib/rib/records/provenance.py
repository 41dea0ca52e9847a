"""Provenance records of jobs: gathered into one file for git, and matched with pulled files.

Each job writes its own record, such as `{"rule": "finetune", "cfg": {...}, "inputs": {"a.npy":
"9f86..."}, "outputs": {"b.pt": "3f2a..."}, "started": ..., "versions": {...}, "machine": {...}}`,
beside its outputs. Gathered records are lines of `provenance.jsonl`, shared through git: an own
record with its path, and with what only Snakemake knows (ADDED). Files shared through DVC are
accepted if their hashes match the record.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.records.hashing import differing

FILE = Path("provenance.jsonl")
ENDING = "provenance.json"
MADE = ("data/raw/", "results/", "reports/")  # jobs made every file here
HASH = re.compile("[0-9a-f]{64}")
LARGEST = 1e15  # more than seconds or bytes of any job
# Types of a record's entries.
TYPES = {
    "rule": str,
    "log": str,
    "started": str,
    "ended": str,
    "cfg": dict,
    "inputs": dict,
    "outputs": dict,
    "sizes": dict,
    "versions": dict,
    "machine": dict,
    "accepted": dict,
    "listed_inputs": list,
}
# Keys that `rib track` adds to a line.
# `accepted`: `cfg`, `commit` and `date` of other settings with which the user kept the outputs
# (`snakemake --touch`); the record itself states the settings that made them.
# `listed_inputs`: inputs as Snakemake lists them, if they differ from the record's: a file that the
# job reads in two roles occurs twice.
ADDED = ("accepted", "listed_inputs")
# Errors when something is read that is no record.
INVALID = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
DAMAGED = "was edited or damaged"
REMEDY = (
    "If shared, delete {it} and run `rib pull`; otherwise delete {it} and run `snakemake {files}`."
)


def remedy(files: Collection[str], advice: str = REMEDY) -> str:
    """Advice for files that differ from their records, with file names quoted for a shell.

    Args:
        advice: text in which `{it}` becomes "it" or "them", and `{files}` the file names.
    """
    pronoun = "it" if len(files) == 1 else "them"
    return advice.format(files=shlex.join(files), it=pronoun)


def load() -> dict[str, list[dict[str, Any]]]:
    """Read provenance.jsonl, the shared records; {} without the file.

    By path of the job's own record: `{"results/emoji/net/provenance.json": [record]}`. A job has
    several records if merged branches both ran it.

    Raises:
        UserError: a line is damaged or no record, for example after a merge conflict.
    """
    if not FILE.is_file():
        return {}
    records: dict[str, list[dict[str, Any]]] = {}
    text = FILE.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            path = record.pop("path")
            if not (_lies_where_jobs_write(path) and path.endswith(ENDING) and _is_valid(record)):
                raise ValueError
        except INVALID:
            raise UserError(
                f"{FILE}, line {number} {DAMAGED}: {line[:40]!r}. After a merge conflict keep the "
                "lines of both sides and remove the conflict markers; otherwise restore the file "
                "from git."
            ) from None
        records.setdefault(path, []).append(record)
    return records


def save(records: Mapping[str, Iterable[dict[str, Any]]]) -> None:
    """Write provenance.jsonl, from records as `load` gives them; equal records give equal bytes."""
    lines = []
    for path in sorted(records):
        for record in records[path]:
            lines.append(json.dumps({"path": path, **record}) + "\n")
    write_text(FILE, "".join(lines))


def of_jobs(paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The record of each job: its own or, without one, its first line in provenance.jsonl.

    Args:
        paths: paths of the jobs' own records.

    Returns:
        Record by path; jobs without any record are left out.
    """
    gathered = load()
    records = {}
    for path in paths:
        own_record = read(Path(path))
        if own_record:
            records[path] = own_record
        elif path in gathered:
            first_record, *_ = gathered[path]
            records[path] = first_record
    return records


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a job's own record; keys keep their order, since Snakemake compares text."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def read(path: Path) -> dict[str, Any] | None:
    """A job's own record; None if it is missing or damaged."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if _is_valid(record) else None
    except INVALID:
        return None


def explain_unreadable(path: Path) -> str:
    """Problem and remedy for a job's own record that can't be read."""
    return f"{DAMAGED}. {remedy([str(path)])}"


def _is_valid(record: dict[str, Any]) -> bool:
    """Whether a record's values have proper types and ranges, since it may come from others.

    A missing key raises a KeyError, one of INVALID, which `read` takes as no.
    """
    for key, entry_type in TYPES.items():
        if key in record and not isinstance(record[key], entry_type):
            return False
    if "accepted" in record and not isinstance(record["accepted"]["cfg"], dict):
        return False
    return (
        "cfg" in record
        and _has_valid_texts(record)
        and _has_valid_files(record)
        and _has_valid_numbers(record)
        and _has_valid_times(record)
    )


def _has_valid_texts(record: Mapping[str, Any]) -> bool:
    """Whether no text that is shown has control characters, which could command a terminal."""
    machine = record["machine"]
    texts = [
        record["rule"],
        record["log"],
        record.get("commit") or "",
        record.get("accepted", {}).get("commit") or "",
        *record["versions"].values(),
        *machine.values(),
    ]
    has_shown_parts = machine.keys() >= {"processor", "system", "python"}
    return has_shown_parts and all(map(str.isprintable, texts))


def _has_valid_files(record: Mapping[str, Any]) -> bool:
    """Whether inputs are plain paths, outputs are where jobs write, and all have a SHA-256."""
    for path in [*record["inputs"], *record.get("listed_inputs", ())]:
        if not path.isprintable() or str(Path(path)) != path:
            return False
    digests = [*record["inputs"].values(), *record["outputs"].values()]
    return all(map(_lies_where_jobs_write, record["outputs"])) and all(map(HASH.fullmatch, digests))


def _has_valid_numbers(record: Mapping[str, Any]) -> bool:
    """Whether seconds, memory and file sizes are numbers from 0 to LARGEST."""
    numbers = [
        record["seconds"],
        record["cpu_seconds"],
        record["peak_memory"],
        *record["sizes"].values(),
    ]
    # `type` excludes booleans, which are integers for isinstance. NaN is outside the range.
    return all(type(number) in (int, float) and 0 <= number < LARGEST for number in numbers)


def _has_valid_times(record: Mapping[str, Any]) -> bool:
    """Whether dates have a time zone, and are not before 1970."""
    times = [record["started"], record["ended"]]
    if "accepted" in record:
        times.append(record["accepted"]["date"])
    epoch = datetime.fromtimestamp(0, UTC)
    return all(datetime.fromisoformat(time) >= epoch for time in times)


def _lies_where_jobs_write(path: str) -> bool:
    """Whether a path is where jobs write, without `..` and control characters."""
    return path.startswith(MADE) and path.isprintable() and os.path.normpath(path) == path


def below(folders_and_records: Iterable[Path]) -> Iterator[Path]:
    """Sorted paths of jobs' own records, given themselves or by a folder around them."""
    for path in sorted(folders_and_records):
        if path.is_dir():
            yield from sorted(path.rglob(f"*{ENDING}"))
        elif path.name.endswith(ENDING):
            yield path


def match(
    records: Mapping[str, list[dict[str, Any]]],
    is_known: Callable[[str], bool],
    is_unfinished: Callable[[str], bool],
) -> dict[str, dict[str, Any]]:
    """Check the files of new jobs against the jobs' own records, and return these by path.

    A job is new if all its files exist and at least one is not known yet, for example after a pull.
    Gathered records only say where to look: a job's own record may be newer, or older after a
    checkout of an older commit.

    Args:
        records: gathered records by path of the job's own record, from `load`.
        is_known: whether a file, given by its path, needs no check.
        is_unfinished: whether a file may differ because its job was killed; such jobs are skipped.

    Raises:
        UserError: an output does not match its record, or the record is damaged.
    """
    files_of_jobs = _files_of_new_jobs(records, is_known)
    own_records = {path: read(Path(path)) for path in files_of_jobs}
    record_of_mismatch = _mismatches(own_records, records)
    unfinished = set()  # records of killed jobs
    for path in record_of_mismatch.values():
        if any(map(is_unfinished, files_of_jobs[path])):
            unfinished.add(path)
    wrong_files = [file for file, path in record_of_mismatch.items() if path not in unfinished]
    if wrong_files:
        path = record_of_mismatch[wrong_files[0]]
        _raise_mismatch(wrong_files, path, is_unreadable=own_records[path] is None)
    complete_records = {}
    for path, record in own_records.items():
        if path not in unfinished:
            assert record is not None  # a missing or unreadable record is a mismatch
            complete_records[path] = record
    return complete_records


def _files_of_new_jobs(
    records: Mapping[str, list[dict[str, Any]]], is_known: Callable[[str], bool]
) -> dict[str, list[str]]:
    """Outputs and record of each new job: `{"a/provenance.json": ["a/x", "a/provenance.json"]}`."""
    files_of_jobs = {}
    for path, gathered in records.items():
        files = [*gathered[0]["outputs"], path]
        all_exist = all(map(os.path.lexists, files))
        if all_exist and not all(map(is_known, files)):
            files_of_jobs[path] = files
    return files_of_jobs


def _mismatches(
    own_records: Mapping[str, dict[str, Any] | None], gathered: Mapping[str, list[dict[str, Any]]]
) -> dict[str, str]:
    """Record of each file that is missing or unlike it: `{"a/x.npy": "a/provenance.json"}`."""
    record_of_mismatch = {}
    path_of_record = {}
    expected = {}
    for path, record in own_records.items():
        # An unreadable record is a wrong file itself, as is one with other outputs: it was copied
        # from another job.
        if record is None or record["outputs"].keys() != gathered[path][0]["outputs"].keys():
            record_of_mismatch[path] = path
            continue
        for file, digest in record["outputs"].items():
            expected[Path(file)] = digest
            path_of_record[Path(file)] = path
    for file in differing(expected, "checking files against records"):
        record_of_mismatch[str(file)] = path_of_record[file]
    return record_of_mismatch


def _raise_mismatch(wrong_files: list[str], record_path: str, is_unreadable: bool) -> None:
    """Always a UserError: the first wrong file (of this record), how many others and a remedy."""
    file = wrong_files[0]
    count_of_others = f" and {len(wrong_files) - 1} more" if len(wrong_files) > 1 else ""
    if is_unreadable:  # in this case the file is the record
        raise UserError(f"{file}{count_of_others}: {explain_unreadable(Path(record_path))}")
    problem = (
        "does not match its provenance record; it was edited, damaged, or pulled without its record"
    )
    # A single file if the record itself is wrong.
    files_to_delete = dict.fromkeys((file, record_path))
    raise UserError(f"{file}{count_of_others}: {problem}. {remedy(files_to_delete)}")


def made_from_others(records: Iterable[str]) -> set[str]:
    """Paths of records whose job read another version of an input than the one here.

    The input was made again later, or by someone else, although the job's outputs match the record.
    `rib pull` lets Snakemake compare the inputs of these jobs.

    Args:
        records: paths of records; paths without a record are ignored.
    """
    own_records = {}
    for path in records:
        record = read(Path(path))
        if record:
            own_records[path] = record
    digest_of_output: dict[str, str] = {}
    for record in own_records.values():
        digest_of_output.update(record["outputs"])
    records_with_other_inputs = set()
    for path, record in own_records.items():
        for file, digest_of_input in record["inputs"].items():
            is_made_here = file in digest_of_output
            if is_made_here and digest_of_output[file] != digest_of_input:
                records_with_other_inputs.add(path)
    return records_with_other_inputs


def started_at(record: Mapping[str, Any]) -> float:
    """When the record's job started, in seconds since 1970."""
    return datetime.fromisoformat(record["started"]).timestamp()


def ended_at(record: Mapping[str, Any]) -> float:
    """When the record's job ended, in seconds since 1970."""
    return datetime.fromisoformat(record["ended"]).timestamp()


def accepted_at(accepted: Mapping[str, Any]) -> float:
    """When a user accepted outputs with `snakemake --touch`, in seconds since 1970.

    `{"cfg": {...}, "date": "1970-01-01T00:01:00+00:00"}` gives 60.
    """
    return datetime.fromisoformat(accepted["date"]).timestamp()


def is_line_of(record: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    """Whether a gathered line equals a job's own record, additions of `rib track` aside."""
    facts = {key: value for key, value in line.items() if key not in ADDED}
    return repr(record) == repr(facts)  # text, since Snakemake compares settings as text


def added_by_track(record: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts that `rib track` added to a record's line in provenance.jsonl; {} without such a line.

    For example `{"listed_inputs": ["a.npy", "a.npy"]}`.
    """
    for line in lines:
        if is_line_of(record, line):
            return {key: line[key] for key in ADDED if key in line}
    return {}


def gather(
    units: Collection[Path],
    additions: Callable[[dict[str, Any], list[dict[str, Any]]], Mapping[str, Any]] = added_by_track,
) -> int:
    """Update provenance.jsonl, and return the number of its jobs; records of other folders stay.

    Args:
        units: folders or files that DVC tracks individually.
        additions: gives the additions to a record's line (ADDED), from the record and the job's
            earlier lines. The default keeps earlier additions.

    Raises:
        UserError: an output changed after its job recorded it; or shared results are missing here
            or newer than the results here, and sharing would remove them.
    """
    records_here = _complete_records(units)
    _refuse_changed_outputs(records_here)
    shared = load()
    prefixes = tuple(f"{unit}/" if unit.is_dir() else str(unit) for unit in units)
    gathered = {}
    lost = []
    for path, shared_records in shared.items():
        if not path.startswith(prefixes):
            gathered[path] = shared_records
        elif path not in records_here or contradicts(records_here[path], shared_records):
            lost.append(path)
    if lost:
        raise UserError(
            f"{FILE} lists {len(lost)} results that are missing here, or whose records here differ "
            f"and are not newer ({lost[0]}); tracking would remove them for everyone. Run "
            "`rib pull` first, and `rib verify` if this remains; to drop them on "
            "purpose, delete their lines."
        )
    for path, record in records_here.items():
        gathered[path] = [{**record, **additions(record, shared.get(path, []))}]
    save(gathered)
    return len(gathered)


def _complete_records(units: Collection[Path]) -> dict[str, dict[str, Any]]:
    """Own records by path; incomplete jobs and unreadable records are logged and left out."""
    complete = {}
    reasons_of_others = {}
    for file in below(units):
        path = str(file)
        record = read(file)
        if record is None:
            reasons_of_others[path] = explain_unreadable(file)
        elif all(map(os.path.lexists, record["outputs"])):
            complete[path] = record
        else:
            reasons_of_others[path] = "has outputs that are missing"
    for path in sorted(reasons_of_others):
        log.warning("%s is left out: it %s", path, reasons_of_others[path])
    return complete


def _refuse_changed_outputs(records: Mapping[str, dict[str, Any]]) -> None:
    """A UserError if an output no longer has the hash in its record."""
    # A job writes its record last, so only files that are newer than the record need hashing.
    time_of_record = {}
    for path, record in records.items():
        for file in [*record["outputs"], path]:
            time_of_record[file] = os.lstat(path).st_mtime

    def is_not_newer(file: str) -> bool:
        return os.lstat(file).st_mtime <= time_of_record[file]

    def is_unfinished(file: str) -> bool:
        """A job whose outputs and record all exist was not killed."""
        return False

    match({path: [record] for path, record in records.items()}, is_not_newer, is_unfinished)


def contradicts(record: dict[str, Any], shared: list[dict[str, Any]]) -> bool:
    """Whether a job's own record differs from all shared records though it is not newer.

    Such a record is old or was edited.

    Args:
        shared: the job's lines in provenance.jsonl, at least one.
    """
    is_shared = any(is_line_of(record, line) for line in shared)
    # Times such as 2025-06-01T12:00:00.000+00:00: later times are greater as text, too.
    newest_shared: str = max(shared_record["ended"] for shared_record in shared)
    ended: str = record["ended"]
    return not is_shared and ended <= newest_shared
