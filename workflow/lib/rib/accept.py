"""Results kept after a change of code that changes no bytes: shown on a sample of jobs, then noted in the records. No torch.

A job's settings hold a digest of the code that it runs, so that a refactoring makes everything anew that uses it. Where a
sample, made anew with the code as it is now, has the bytes it had, the rest is taken to have them too, and its records say
since when, by which digest, and by which sample.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from rib import provenance
from rib.integrity import hashes
from rib.io import UserError, log, write_text
from rib.job import commit, processor, versions
from rib.verify import examine

SAMPLE = "RIB_ACCEPT_SAMPLE"  # environment variable: how many jobs of each kind are made anew
USUAL = 2


def sample_size(text: str) -> int:
    """The number of jobs per kind that the environment variable asks for.

    Raises:
        UserError: it isn't a whole number from 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{SAMPLE} is '{text}'; set it to a whole number from 1: jobs of each kind to make anew.")
    return int(text)


def chosen(changes: Mapping[str, Mapping], number: int) -> list[str]:
    """The sample: of each kind some jobs, of different models as long as there are, by hash and so the same every time.

    Args:
        changes: by path of the record, `kind` and `model`.
        number: of jobs per kind; all where there are fewer.
    """

    def by_hash(path: str) -> str:
        return hashlib.sha256(path.encode()).hexdigest()

    sample = []
    for _, paths in groupby(
        sorted(changes, key=lambda path: changes[path]["kind"]), lambda path: changes[path]["kind"]
    ):
        turns: dict[str, int] = {}
        ranked = []
        for path in sorted(paths, key=by_hash):
            model = changes[path]["model"]
            turns[model] = turns.get(model, 0) + 1
            ranked.append((turns[model], by_hash(path), path))  # each model's first before any model's second
        sample += [path for *_, path in sorted(ranked)[:number]]
    return sorted(sample)


def accept(
    changes: Mapping[str, Mapping],
    number: int,
    rehearsed: Callable[[Mapping[str, list[str]]], AbstractContextManager[Path]],
    note: Callable[[str, Mapping], None],
) -> None:
    """Keep the results of jobs of which only the code changed, if a sample of them comes out the same.

    Args:
        changes: by path of the record of each such job `rule`, `code` (digest now), `kind`, `model`.
        number: jobs of each kind in the sample.
        rehearsed: makes jobs, given as records' paths by rule, anew in another folder, which the context is.
        note: tells Snakemake of a record that was rewritten.

    Raises:
        UserError: a sampled job fails, or has other bytes; then nothing is noted.
    """
    changes = _sound(changes)
    if not changes:
        print("nothing to accept: of no finished job only the code has changed")
        return
    sample = chosen(changes, number)
    by_rule = {rule: [path for path in sample if changes[path]["rule"] == rule] for rule in _rules(changes, sample)}
    print(f"only the code has changed of {_jobs(len(changes))}; making {len(sample)} anew, elsewhere", flush=True)
    with rehearsed(by_rule) as folder:
        _refuse_other_bytes(sample, folder, changes)
    when, here = datetime.now(UTC).isoformat(timespec="seconds"), commit()
    for path, change in changes.items():
        record = provenance.read(Path(path))
        kind = [other for other in sample if changes[other]["kind"] == change["kind"]]
        entry = {"from": record["cfg"]["code"], "to": change["code"], "when": when, "commit": here, "sample": kind}
        record["accepted"] = [*record.get("accepted", []), entry]
        record["cfg"]["code"] = change["code"]
        write_text(Path(path), json.dumps(record, indent=1) + "\n")
        note(path, record)
    print(f"{len(sample)} of {len(sample)} sampled jobs have the bytes they had: {_jobs(len(changes))} accepted")
    print("`snakemake -n` lists what is left to make; where results are shared, call `snakemake track` again")


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _rules(changes: Mapping[str, Mapping], sample: Iterable[str]) -> list[str]:
    return sorted({changes[path]["rule"] for path in sample})


def _sound(changes: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """Jobs of which all inputs and outputs are here and as recorded; every byte is read."""
    seen = examine(changes)
    unsound = {finding.job for finding in seen.findings}
    sound = {}
    for path, change in changes.items():
        record = seen.records.get(path)
        complete = record and all(seen.hashes[file] == digest for file, digest in record["inputs"].items())
        if path not in unsound and complete:
            sound[path] = change
    if left := len(changes) - len(sound):
        print(f"left to be made anew, since inputs or outputs are not what the record says, or not here: {_jobs(left)}")
    return sound


def _refuse_other_bytes(sample: list[str], folder: Path, changes: Mapping[str, Mapping]) -> None:
    """Raise a UserError where a sampled job's outputs differ from those that its record tells."""
    wanted, different = {path: provenance.read(Path(path)) for path in sample}, {}
    made = {path: provenance.read(folder / path) for path in sample}
    files = [folder / file for record in wanted.values() for file in record["outputs"]]
    found = hashes(files, "comparing")
    for path, record in wanted.items():
        new = made[path]
        if new is None or new["cfg"]["code"] != changes[path]["code"]:
            raise UserError(
                f"the code changed while the sample was made ({path}); nothing was accepted, call it again."
            )
        different |= {file: path for file, digest in record["outputs"].items() if found[folder / file] != digest}
    for file, path in different.items():
        log.info("other bytes: %s (job %s)", file, path)
    if different:
        file, path = next(iter(different.items()))
        more = f" and {len(different) - 1} more files" if len(different) > 1 else ""
        raise UserError(
            f"{file}{more}: other bytes with the code as it is now, in {len(set(different.values()))} of {len(sample)} sampled "
            f"jobs ({wanted[path]['rule']}); nothing was accepted.{_elsewhere(wanted[path])} Run snakemake to make what is "
            "affected anew, or correct the code."
        )


def _elsewhere(record: Mapping) -> str:
    """A word on surroundings that by themselves may change bytes."""
    machine = record.get("machine", {}).get("processor")
    if record.get("versions") == versions() and machine == processor():
        return ""
    return " The job's record is of other library versions or another processor, which may be the reason."
