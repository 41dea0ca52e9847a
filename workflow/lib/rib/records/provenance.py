"""Provenance records of many jobs: gathered into one file for git, and matched with files from DVC.

Each job writes a record next to its outputs (rib/jobs/job.py). `provenance.jsonl` contains one line per job, sorted by
path of the record, and is shared through git. Files shared through DVC are accepted if their hashes match a record.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import write_text
from rib.base.progress import log
from rib.records.hashing import differing

FILE = Path("provenance.jsonl")
ENDING = "provenance.json"


def load() -> dict[str, list[dict]]:
    """Gathered records by path of the job's own record; empty if there is no file.

    A path has several records if merged branches ran the same job.

    Raises:
        UserError: A line is not a record, for example after a merge conflict.
    """
    records: dict[str, list[dict]] = {}
    if FILE.is_file():
        for number, line in enumerate(FILE.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = _parsed(line)
                records.setdefault(record.pop("path"), []).append(record)
            except (ValueError, KeyError, AttributeError, TypeError):
                raise UserError(
                    f"{FILE}, line {number} is not a record: '{line[:40]}'; after a merge conflict keep the lines of "
                    "both sides and remove the conflict markers, otherwise restore the file from git."
                ) from None
    return records


def save(records: Mapping[str, Iterable[dict]]) -> None:
    """Write gathered records, sorted, so that equal records give equal bytes."""
    lines = [json.dumps({"path": name, **record}) + "\n" for name in sorted(records) for record in records[name]]
    write_text(FILE, "".join(lines))


def _parsed(text: str) -> dict:
    """A record; ValueError, KeyError or TypeError if Snakemake's metadata cannot be restored from it."""
    record = json.loads(text)
    for key in ("rule", "log", "cfg", "inputs", "outputs", "seconds", "ended"):
        record[key]
    return record


def read(path: Path) -> dict | None:
    """A job's own record; None if it is missing, damaged or has another format."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """Sorted paths of jobs' own records in folders; a path that is such a record is also accepted."""
    for folder in sorted(folders):
        found = folder.rglob(f"*{ENDING}") if folder.is_dir() else [folder] if folder.name.endswith(ENDING) else []
        yield from sorted(found)


def match(
    records: Mapping[str, list[dict]], is_known: Callable[[str], bool], is_unfinished: Callable[[str], bool]
) -> dict[str, dict]:
    """Own records, by path, of jobs whose outputs all exist, are not known yet, and match the record next to them.

    Gathered records only say where to look. Outputs are compared with the job's own record, which may be newer, or
    older after a checkout of an older commit.

    Args:
        is_known: whether a path need not be checked.
        is_unfinished: whether a path may differ because its job was killed; such jobs are skipped.

    Raises:
        UserError: An output does not match its record, or the record is damaged.
    """
    files = {path: [*gathered[0]["outputs"], path] for path, gathered in records.items()}
    unknown = {
        path: read(Path(path))
        for path, made in files.items()
        if all(map(os.path.lexists, made)) and not all(map(is_known, made))
    }
    # A record that names other outputs was copied here from another job.
    foreign = {
        path: path
        for path, own in unknown.items()
        if own is None or own["outputs"].keys() != records[path][0]["outputs"].keys()
    }
    made = {Path(file): path for path, own in unknown.items() if path not in foreign for file in own["outputs"]}
    expected = {file: unknown[path]["outputs"][str(file)] for file, path in made.items()}
    foreign |= {str(file): made[file] for file in differing(expected, "checking files against records")}
    unfinished = {path for path in foreign.values() if any(map(is_unfinished, files[path]))}
    wrong = {file: path for file, path in foreign.items() if path not in unfinished}
    if wrong:
        file, path = next(iter(wrong.items()))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{file}{more}: does not match its provenance record; it was edited, damaged, or pulled without its "
            f"record. Restore both with `dvc pull --force {' '.join(dict.fromkeys((file, path)))}`, or delete them to "
            "have them made again."
        )
    return {path: own for path, own in unknown.items() if path not in unfinished}


def made_from_others(records: Iterable[str]) -> set[str]:
    """Records of jobs with an input that was made again since, or by someone else.

    The outputs of such a job match its record, but were not made from the current inputs.
    """
    own = {path: record for path in records if (record := read(Path(path)))}
    made = {file: digest for record in own.values() for file, digest in record["outputs"].items()}
    return {
        path
        for path, record in own.items()
        if any(made.get(file, digest) != digest for file, digest in record["inputs"].items())
    }


def gather(units: Collection[Path]) -> int:
    """Update the gathered records and return their number; records of other places than the given ones are kept.

    Args:
        units: folders or files that DVC tracks individually.

    Raises:
        UserError: An output was changed after its job recorded it, or shared results are missing here or newer than
            those here, so that sharing would remove them.
    """
    found = {str(file): read(file) for file in below(units)}
    own = {name: [record] for name, record in found.items() if record and all(map(os.path.lexists, record["outputs"]))}
    for name in found.keys() - own.keys():
        log.warning("%s is left out: outputs are missing, or an earlier version wrote it", name)
    # A job writes its record last, so only files that changed later need hashing.
    recorded = {file: os.lstat(name).st_mtime for name, [record] in own.items() for file in [*record["outputs"], name]}
    match(own, lambda file: os.lstat(file).st_mtime <= recorded[file], lambda file: False)
    here = tuple(f"{unit}/" if unit.is_dir() else str(unit) for unit in units)
    shared = load()
    lost = [
        name
        for name, lines in shared.items()
        if name.startswith(here) and (name not in own or _is_older(own[name][0], lines))
    ]
    if lost:
        raise UserError(
            f"{FILE} lists {len(lost)} results that are missing here or newer than those here ({lost[0]}); tracking "
            "would remove them for everyone. Run `dvc pull` first; to drop them on purpose, delete their lines."
        )
    kept = {name: lines for name, lines in shared.items() if not name.startswith(here)} | own
    save(kept)
    return len(kept)


def _is_older(record: dict, shared: list[dict]) -> bool:
    return record not in shared and record["ended"] < max(line["ended"] for line in shared)
