"""Provenance records of many jobs: gathered into one file for git, and matched with files from DVC.

Each job writes a record next to its outputs (rib/jobs/job.py). `provenance.jsonl` contains one line per job, sorted by
path of the record, and is shared through git. Files shared through DVC are accepted if their hashes match a record.

A record and a line end with a digest of their text, so that any change of either is noticed.
"""

import errno
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.records.hashing import differing

FILE = Path("provenance.jsonl")
ENDING = "provenance.json"
MADE = ("data/raw/", "results/", "reports/")  # every file here was made by a job
HASH = re.compile("[0-9a-f]{64}")
LARGEST = 1e15  # far more than the seconds or bytes of any job
# Parts of a record; the last may be missing.
TYPES = {
    "rule": str,
    "log": str,
    "started": str,
    "ended": str,
    "cfg": dict,
    "inputs": dict,
    "outputs": dict,
}
TYPES |= {"sizes": dict, "versions": dict, "machine": dict, "accepted": list}
INVALID = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
DAMAGED = "was edited or damaged, or an earlier version wrote it"
REMEDY = "If shared, delete {it} and run `snakemake pull`; otherwise delete {it} and run `snakemake {files}`."
DVC_OBJECT = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


def remedy(files: Collection[str], advice: str = REMEDY) -> str:
    """Advice for files that differ from their records; names are quoted, so that a shell takes the command as it is."""
    return advice.format(files=shlex.join(files), it="it" if len(files) == 1 else "them")


def load() -> dict[str, list[dict]]:
    """Gathered records by path of the job's own record, several if merged branches ran the same job; {} without a file.

    Raises a UserError if a line is damaged, or not a record, for example after a merge conflict.
    """
    return from_lines(FILE.read_text(encoding="utf-8", errors="replace") if FILE.is_file() else "")


def from_lines(text: str) -> dict[str, list[dict]]:
    """Records in the lines that `as_lines` made, by path; raises a UserError as `load`."""
    records: dict[str, list[dict]] = {}
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        try:
            record = _parsed(line, "")
            path = record.pop("path")
            if not (_is_made(path) and path.endswith(ENDING)):
                raise ValueError
        except INVALID:
            raise UserError(
                f"{FILE}, line {number} {DAMAGED}: {line[:40]!r}. After a merge conflict keep the lines of both sides "
                "and remove the conflict markers; otherwise restore the file from git, or delete it and run "
                "`snakemake track` if you tracked with an earlier version."
            ) from None
        records.setdefault(path, []).append(record)
    return records


def save(records: Mapping[str, Iterable[dict]]) -> None:
    """Write gathered records."""
    write_text(FILE, as_lines(records))


def as_lines(records: Mapping[str, Iterable[dict]]) -> str:
    """Records by path in lines, sorted, so that equal records give equal bytes."""
    return "".join(
        _with_digest({"path": name, **record}, "")
        for name in sorted(records)
        for record in records[name]
    )


def of_jobs(paths: Iterable[str]) -> dict[str, dict]:
    """Records of jobs by path: their own or, where that is missing, the gathered one; jobs without either are left out."""
    gathered = load()
    found = {path: read(Path(path)) or next(iter(gathered.get(path, [])), None) for path in paths}
    return {path: record for path, record in found.items() if record}


def write(path: Path, record: Mapping) -> None:
    """Write a job's own record. Keys keep their order, since Snakemake compares settings as text."""
    write_text(path, _with_digest(record, "\n"))


def read(path: Path) -> dict | None:
    """A job's own record, without its digest; None if it is missing, was edited or damaged, or has no digest."""
    try:
        return _parsed(path.read_text(encoding="utf-8"), "\n") if path.is_file() else None
    except INVALID:
        return None


def _with_digest(record: Mapping, newline: str) -> str:
    """A record as JSON, with the SHA-256 of that text as last entry; in one line if `newline` is empty."""
    text = json.dumps(record, indent=1 if newline else None)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text.removesuffix(newline + "}")},{newline} "sha256": "{digest}"{newline}}}\n'


def _parsed(text: str, newline: str) -> dict:
    """The record in a text that `_with_digest` wrote; raises one of INVALID for any other text."""
    body, _, ending = text.rpartition(f',{newline} "sha256": ')
    body += newline + "}"
    if ending != f'"{hashlib.sha256(body.encode()).hexdigest()}"{newline}}}\n':
        raise ValueError("another digest")
    record = json.loads(body)
    hashes = [*record["inputs"].values(), *record["outputs"].values()]
    numbers = [
        *(record[key] for key in ("seconds", "cpu_seconds", "peak_memory")),
        *record["sizes"].values(),
    ]
    times = [
        record["started"],
        record["ended"],
        *(entry["when"] for entry in record.get("accepted", [])),
    ]
    texts = [
        *record["versions"].values(),
        *(record["machine"][key] for key in ("processor", "system", "python")),
    ]
    valid = (
        all(isinstance(record.get(key, kind()), kind) for key, kind in TYPES.items())
        and all(
            map(
                str.isprintable, (record["rule"], record["log"], record.get("commit") or "", *texts)
            )
        )
        and all(name.isprintable() and str(Path(name)) == name for name in record["inputs"])
        and all(map(_is_made, record["outputs"]))
        and all(map(HASH.fullmatch, hashes))
        and all(type(number) in (int, float) and 0 <= number < LARGEST for number in numbers)
        and all(datetime.fromisoformat(time) >= datetime.fromtimestamp(0, UTC) for time in times)
    )
    if not valid or "cfg" not in record:
        raise ValueError("a part is missing or has another type")
    return record


def _is_made(name: str) -> bool:
    """Whether a name is one of a file below the folders that jobs write to, without control characters."""
    return name.startswith(MADE) and name.isprintable() and os.path.normpath(name) == name


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """Sorted paths of jobs' own records in folders; a path that is such a record is also accepted."""
    for folder in sorted(folders):
        found = (
            folder.rglob(f"*{ENDING}")
            if folder.is_dir()
            else [folder]
            if folder.name.endswith(ENDING)
            else []
        )
        yield from sorted(found)


def match(
    records: Mapping[str, list[dict]],
    is_known: Callable[[str], bool],
    is_unfinished: Callable[[str], bool],
) -> dict[str, dict]:
    """Own records, by path, of jobs whose outputs all exist, are not known yet, and match the record next to them.

    Gathered records only say where to look. Outputs are compared with the job's own record, which may be newer, or
    older after a checkout of an older commit. Raises a UserError if an output does not match its record, the record is
    damaged, or one of them is not a regular file in the folders that jobs write to.

    Args:
        is_known: whether a path need not be checked.
        is_unfinished: whether a path may differ because its job was killed; such jobs are skipped.
    """
    files = {path: [*gathered[0]["outputs"], path] for path, gathered in records.items()}
    new = [
        path
        for path, made in files.items()
        if all(map(os.path.lexists, made)) and not all(map(is_known, made))
    ]
    for path in new:
        _refuse_elsewhere(files[path])
    unknown = {path: read(Path(path)) for path in new}
    # A record that names other outputs was copied here from another job.
    foreign = {
        path: path
        for path, own in unknown.items()
        if own is None or own["outputs"].keys() != records[path][0]["outputs"].keys()
    }
    made = {
        Path(file): path
        for path, own in unknown.items()
        if path not in foreign
        for file in own["outputs"]
    }
    expected = {file: unknown[path]["outputs"][str(file)] for file, path in made.items()}
    foreign |= {
        str(file): made[file] for file in differing(expected, "checking files against records")
    }
    unfinished = {path for path in foreign.values() if any(map(is_unfinished, files[path]))}
    wrong = {file: path for file, path in foreign.items() if path not in unfinished}
    if wrong:
        file, path = next(iter(wrong.items()))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        what = "does not match its provenance record; it was edited, damaged, or pulled without its record"
        what = DAMAGED if unknown[path] is None else what
        raise UserError(f"{file}{more}: {what}. {remedy(dict.fromkeys((file, path)))}")
    return {path: own for path, own in unknown.items() if path not in unfinished}


def _refuse_elsewhere(files: Iterable[str]) -> None:
    """Refuse folders, devices and links that lead out of the folders of results, without opening them.

    Archives may be links to the user's folders (rib.data.download), and other files links into DVC's cache.
    """
    for file in files:
        path, root = Path(file), next(folder for folder in MADE if file.startswith(folder))
        inside, target = os.path.realpath(root), os.path.realpath(path)
        usual = root == MADE[0] or DVC_OBJECT.search(target) or Path(target).is_relative_to(inside)
        if not (usual and path.parent.resolve().is_relative_to(inside)) or (
            path.exists() and not path.is_file()
        ):
            raise UserError(
                f"{file}, which a record names, is not a regular file, or leads to one outside of {root}; move it "
                f"here (only {root} itself may be a link), or remove it, or its line in {FILE} if you do not know it."
            )


def changed(
    has_other_time: Callable[[str], bool], is_unfinished: Callable[[str], bool]
) -> list[str]:
    """Outputs whose time or size is not that of their job, and damaged records. Only the records are read.

    A link that leads back to itself in place of an output counts as changed, unlike an output that
    is missing. If all files of a job have another time, they were copied as a whole, and only sizes
    count.
    """
    found = []
    for path in below(map(Path, MADE)):
        record, differs = read(path), {}
        found += [] if record else [str(path)]
        for file in record["outputs"] if record else ():
            if _is_loop(file):
                found.append(file)
                continue
            with suppress(OSError):  # it is missing, or another run is making it
                differs[file] = (
                    has_other_time(file),
                    Path(file).stat().st_size != record["sizes"].get(file),
                )
        copied = all(time for time, _ in differs.values()) and has_other_time(str(path))
        found += [file for file, (time, size) in differs.items() if size or (time and not copied)]
    return [file for file in found if not is_unfinished(file)]


def _is_loop(file: str) -> bool:
    """Whether a path is a link that leads back to itself, which nothing can read."""
    try:
        Path(file).stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def made_from_others(records: Iterable[str]) -> set[str]:
    """Records of jobs with an input that was made again since, or by someone else, though outputs match the record."""
    own = {path: record for path in records if (record := read(Path(path)))}
    made = {file: digest for record in own.values() for file, digest in record["outputs"].items()}
    return {
        path
        for path, record in own.items()
        if any(made.get(file, digest) != digest for file, digest in record["inputs"].items())
    }


def gather(units: Collection[Path]) -> int:
    """Update the gathered records and return their number; records of other places than the given ones are kept.

    `units` are folders or files that DVC tracks individually. Raises a UserError if an output was changed after its job
    recorded it, or if shared results are missing here or newer than those here, so that sharing would remove them.
    """
    found = {str(file): read(file) for file in below(units)}
    own = {
        name: [record]
        for name, record in found.items()
        if record and all(map(os.path.lexists, record["outputs"]))
    }
    for name in sorted(found.keys() - own.keys()):
        why = (
            f"{DAMAGED}. {remedy([name])}"
            if found[name] is None
            else "has outputs that are missing"
        )
        log.warning("%s is left out: it %s", name, why)
    # A job writes its record last, so only files that changed later need hashing.
    recorded = {
        file: os.lstat(name).st_mtime
        for name, [record] in own.items()
        for file in [*record["outputs"], name]
    }
    match(own, lambda file: os.lstat(file).st_mtime <= recorded[file], lambda file: False)
    here = tuple(f"{unit}/" if unit.is_dir() else str(unit) for unit in units)
    shared = load()
    lost = [
        name
        for name, lines in shared.items()
        if name.startswith(here) and (name not in own or contradicts(own[name][0], lines))
    ]
    if lost:
        raise UserError(
            f"{FILE} lists {len(lost)} results that are missing here, or whose records here differ and are not newer "
            f"({lost[0]}); tracking would remove them for everyone. Run `snakemake pull` first, and `snakemake verify` "
            "if this remains; to drop them on purpose, delete their lines."
        )
    kept = {name: lines for name, lines in shared.items() if not name.startswith(here)} | own
    save(kept)
    return len(kept)


def contradicts(record: dict, shared: list[dict]) -> bool:
    """Whether a job's own record differs from all shared ones though it is not newer: it is older, or was edited."""
    differs = repr(record) not in map(repr, shared)  # as text, as Snakemake compares settings
    return differs and _written(record) <= max(map(_written, shared))


def _written(record: Mapping) -> str:
    """When a record was written: at the end of the job, or when it was last accepted."""
    return max([record["ended"], *(entry["when"] for entry in record.get("accepted", []))])
