"""Provenance records of many jobs: gathered into one file for git, and matched with files that came by DVC.

Each job leaves a record beside its outputs (rib/job.py). `provenance.jsonl`, one line per job sorted by the record's
path, is what travels in git; what travels through DVC is trusted as far as its hashes agree with a record.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from rib.io import UserError, sha256, write_text

FILE = Path("provenance.jsonl")
ENDING = "provenance.json"


def load(path: Path = FILE) -> dict[str, list[dict]]:
    """Gathered records by the path of the job's own record; none where there is no file.

    A path has several where two branches that made the same thing were merged.

    Raises:
        UserError: a line isn't a record, as after a merge with conflicts.
    """
    records: dict[str, list[dict]] = {}
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                records.setdefault(record.pop("path"), []).append(record)
            except (ValueError, KeyError, AttributeError, TypeError):
                raise UserError(
                    f"{path}, line {number} is no record: '{line[:40]}'; if git left a conflict there, keep the lines "
                    "of both sides without the marks, else get the file back from git."
                ) from None
    return records


def save(records: Mapping[str, Iterable[dict]], path: Path = FILE) -> None:
    """Write gathered records, sorted, so that equal records give equal bytes."""
    lines = [json.dumps({"path": name, **record}) + "\n" for name in sorted(records) for record in records[name]]
    write_text(path, "".join(lines))


def read(path: Path) -> dict | None:
    """A job's own record, None where it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """Jobs' own records in folders, or at paths that are such records, sorted."""
    for folder in sorted(folders):
        found = folder.rglob(f"*{ENDING}") if folder.is_dir() else [folder] if folder.name.endswith(ENDING) else []
        yield from sorted(found)


def match(records: Mapping[str, list[dict]], is_known: Callable[[str], bool]) -> dict[str, dict]:
    """Jobs whose outputs are all there but not known yet, and agree with the record beside them.

    Gathered records tell where to look. What is compared is the job's own record: who worked on after gathering, or
    went back to an older commit, has another one, and it is as good.

    Args:
        records: gathered records.
        is_known: whether a path needs no look.

    Returns:
        The jobs' own records by path.

    Raises:
        UserError: an output is not what its record says, or the record is damaged.
    """
    unknown = {
        path: read(Path(path))
        for path, gathered in records.items()
        if all(map(os.path.lexists, [*gathered[0]["outputs"], path])) and not _all_known(path, gathered[0], is_known)
    }
    made = {file: digest for record in unknown.values() if record for file, digest in record["outputs"].items()}
    foreign = [path for path, record in unknown.items() if record is None]
    foreign += [file for file, found in zip(made, _hashes(list(made)), strict=True) if found != made[file]]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{foreign[0]}{more}: not what its provenance record says was made; it was changed or damaged afterwards. "
            "Get it back with `dvc checkout --force`, or delete it to have it made anew."
        )
    return unknown


def _all_known(path: str, record: dict, is_known: Callable[[str], bool]) -> bool:
    return all(map(is_known, [*record["outputs"], path]))


def _hashes(files: list[str]) -> Iterator[str | None]:
    """SHA-256 of each file in turn, None where it is missing; in threads, since hashing leaves Python alone."""
    with ThreadPoolExecutor() as pool:
        hashing = pool.map(lambda file: sha256(file) if file.exists() else None, map(Path, files))
        yield from tqdm(hashing, "checking files against records", len(files), unit="file", delay=5, leave=False)


def gather(units: Iterable[Path], path: Path = FILE) -> int:
    """Bring the gathered records up to date with what lies in folders; records of other places are kept.

    Args:
        units: folders, or files, that DVC tracks one by one.
        path: of the gathered records.

    Returns:
        Number of records.

    Raises:
        UserError: an output was changed after its job had recorded it.
    """
    units = list(units)
    own = {
        str(file): [record]
        for file in below(units)
        if (record := read(file)) and all(map(os.path.lexists, record["outputs"]))
    }
    # A job writes its record last: only what changed later needs hashing.
    recorded = {file: os.lstat(name).st_mtime for name, [record] in own.items() for file in [*record["outputs"], name]}
    match(own, lambda file: os.lstat(file).st_mtime <= recorded[file])
    here = tuple(f"{unit}/" if unit.is_dir() else str(unit) for unit in units)
    elsewhere = {name: lines for name, lines in load(path).items() if not name.startswith(here)}
    save({**elsewhere, **own}, path)
    return len(elsewhere) + len(own)
