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

from rib.io import UserError, log, sha256, write_text

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
                _check(record)
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


def _check(record: dict) -> None:
    """Raise KeyError or TypeError for what is no record that Snakemake's can be restored from."""
    for key in ("rule", "log", "cfg", "inputs", "outputs", "seconds", "ended"):
        record[key]


def read(path: Path) -> dict | None:
    """A job's own record, None where it is missing, damaged or of another form."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        _check(record)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """Jobs' own records in folders, or at paths that are such records, sorted."""
    for folder in sorted(folders):
        found = folder.rglob(f"*{ENDING}") if folder.is_dir() else [folder] if folder.name.endswith(ENDING) else []
        yield from sorted(found)


def match(
    records: Mapping[str, list[dict]], is_known: Callable[[str], bool], is_unfinished: Callable[[str], bool]
) -> dict[str, dict]:
    """Jobs whose outputs are all there but not known yet, and agree with the record beside them.

    Gathered records tell where to look. What is compared is the job's own record: who worked on after gathering, or
    went back to an older commit, has another one, and it is as good.

    Args:
        records: gathered records.
        is_known: whether a path needs no look.
        is_unfinished: whether a path may differ, because its job was killed; it is then left alone.

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
    # A record that names other outputs was copied here from another job.
    foreign = {
        path: path
        for path, own in unknown.items()
        if own is None or own["outputs"].keys() != records[path][0]["outputs"].keys()
    }
    made = {
        file: (digest, path)
        for path, own in unknown.items()
        if path not in foreign
        for file, digest in own["outputs"].items()
    }
    foreign |= {
        file: made[file][1] for file, found in zip(made, _hashes(list(made)), strict=True) if found != made[file][0]
    }
    unfinished = {path for path in foreign.values() if any(map(is_unfinished, [*records[path][0]["outputs"], path]))}
    wrong = {file: path for file, path in foreign.items() if path not in unfinished}
    if wrong:
        file, path = next(iter(wrong.items()))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{file}{more}: not what its provenance record says was made; it was changed or damaged afterwards, or pulled "
            f"without its record. Get both back with `dvc pull --force {' '.join(dict.fromkeys((file, path)))}`, or delete "
            "them to have them made anew."
        )
    return {path: own for path, own in unknown.items() if path not in unfinished}


def made_from_others(records: Iterable[str]) -> set[str]:
    """Jobs, of those given by the path of their record, one of whose inputs was made anew since, or by someone else.

    Their outputs are what their record says, but not what the inputs that lie here lead to.
    """
    own = {path: record for path in records if (record := read(Path(path)))}
    made = {file: digest for record in own.values() for file, digest in record["outputs"].items()}
    return {
        path
        for path, record in own.items()
        if any(made.get(file, digest) != digest for file, digest in record["inputs"].items())
    }


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
        UserError: an output was changed after its job had recorded it, or results that others shared are missing
            here or newer than those here: sharing would take them away.
    """
    units = list(units)
    found = {str(file): read(file) for file in below(units)}
    own = {name: [record] for name, record in found.items() if record and all(map(os.path.lexists, record["outputs"]))}
    for name in found.keys() - own.keys():
        log.warning("%s is left out: its outputs are not all there, or an earlier version wrote it", name)
    # A job writes its record last: only what changed later needs hashing.
    recorded = {file: os.lstat(name).st_mtime for name, [record] in own.items() for file in [*record["outputs"], name]}
    match(own, lambda file: os.lstat(file).st_mtime <= recorded[file], lambda file: False)
    here = tuple(f"{unit}/" if unit.is_dir() else str(unit) for unit in units)
    shared = load(path)
    _refuse_loss({name: lines for name, lines in shared.items() if name.startswith(here)}, own, path)
    elsewhere = {name: lines for name, lines in shared.items() if not name.startswith(here)}
    save({**elsewhere, **own}, path)
    return len(elsewhere) + len(own)


def _refuse_loss(shared: Mapping[str, list[dict]], own: Mapping[str, list[dict]], path: Path) -> None:
    """Raise a UserError where results that others shared would be lost from what is tracked."""
    lost = [
        name
        for name, lines in shared.items()
        if name not in own
        or (own[name][0] not in lines and max(line["ended"] for line in lines) > own[name][0]["ended"])
    ]
    if lost:
        raise UserError(
            f"{path} has {len(lost)} results that are not here, or are newer than those here ({lost[0]}): tracking would "
            "take them away from those you share with. Call `dvc pull` first; to drop them on purpose, remove their lines."
        )
