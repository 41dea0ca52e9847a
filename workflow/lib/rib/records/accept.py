"""Keep results after a change of code that does not change them, checked on a sample of jobs. No torch.

A job's settings contain a digest of its code, so a refactoring re-runs every job that uses the changed code. Instead, a
sample of jobs is re-run with the current code. If its outputs are identical, all results are accepted. Their records
state the time, the digests and the sample.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from rib.base.errors import UserError
from rib.base.progress import log, print_lines
from rib.records import provenance
from rib.records.environment import commit
from rib.records.hashing import differing
from rib.records.verify import examine

SAMPLE = "RIB_ACCEPT_SAMPLE"  # environment variable: how many jobs of each kind to re-run
USUAL = 2


def sample_size(text: str) -> int:
    """The number of jobs per kind that the environment variable requests; a UserError unless a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"{SAMPLE} is '{text}'; set it to a positive integer: the number of jobs per kind to re-run."
        )
    return int(text)


def sample_of(changes: Mapping[str, Mapping], number: int) -> list[str]:
    """Records of jobs of each kind, from different models if possible; ordered by hash, hence deterministic."""
    turns, ranked = Counter(), defaultdict(list)
    for path in sorted(changes, key=lambda path: hashlib.sha256(path.encode()).hexdigest()):
        kind, model = changes[path]["kind"], changes[path]["model"]
        turns[kind, model] += 1
        ranked[kind].append((turns[kind, model], len(ranked[kind]), path))
    return sorted(path for jobs in ranked.values() for *_, path in sorted(jobs)[:number])


def accept(
    changes: Mapping[str, Mapping],
    number: int,
    made_again: Callable[[list[str]], AbstractContextManager[Path]],
    note: Callable[[str, Mapping], None],
) -> None:
    """Accept the results of jobs with changed code if re-running a sample gives identical outputs.

    Args:
        changes: `code` (current digest), `kind` and `model` of each such job, by path of the record.
        made_again: re-runs jobs, given as paths of their records, in another folder and yields that folder.
        note: notifies Snakemake of a rewritten record.

    Raises a UserError, without changing a record, if a sampled job fails or has different outputs.
    """
    seen = examine(changes)
    unsound = {finding.job for finding in seen.findings}
    unsound |= {
        path
        for path, record in seen.records.items()
        if not record["inputs"].items() <= seen.hashes.items()
    }
    kept = {
        path: change
        for path, change in changes.items()
        if path in seen.records and path not in unsound
    }
    if left := len(changes) - len(kept):
        print_lines(
            f"not accepted, because inputs or outputs are missing or differ from the record: {left} jobs"
        )
    if not kept:
        print_lines("nothing to accept: there is no finished job with a change of code only")
        return
    sample = sample_of(kept, number)
    print_lines(
        f"only the code has changed for {len(kept)} jobs; re-running {len(sample)} in another folder"
    )
    with made_again(sample) as folder:
        _refuse_other_bytes(sample, folder, kept)
    when, here = datetime.now(UTC).isoformat(timespec="seconds"), commit()
    for path, change in kept.items():
        record = provenance.read(Path(path))
        kind = [other for other in sample if kept[other]["kind"] == change["kind"]]
        entry = {
            "from": record["cfg"]["code"],
            "to": change["code"],
            "when": when,
            "commit": here,
            "sample": kind,
        }
        record["accepted"] = [*record.get("accepted", []), entry]
        record["cfg"]["code"] = change["code"]
        note(
            path, record
        )  # first, so that the next call still finds this job if this one is killed here
        provenance.write(Path(path), record)
        note(path, record)
    print_lines(
        f"the outputs of {len(sample)} sampled jobs are identical: {len(kept)} jobs accepted"
    )
    print_lines(
        "`snakemake -n` lists the remaining jobs; if results are shared, run `snakemake track` again"
    )


def _refuse_other_bytes(sample: list[str], folder: Path, changes: Mapping[str, Mapping]) -> None:
    for path in sample:
        made = provenance.read(folder / path)
        if made is None or made["cfg"]["code"] != changes[path]["code"]:
            raise UserError(
                f"the code changed while the sample ran ({path}); nothing was accepted, run it again."
            )
    outputs = {path: provenance.read(Path(path))["outputs"] for path in sample}
    jobs = {folder / file: path for path, files in outputs.items() for file in files}
    expected = {
        folder / file: digest for files in outputs.values() for file, digest in files.items()
    }
    different = {file.relative_to(folder): jobs[file] for file in differing(expected, "comparing")}
    for file, path in different.items():
        log.info("different: %s (job %s)", file, path)
    if different:
        raise UserError(
            f"{next(iter(different))} differs with the current code ({len(set(different.values()))} of {len(sample)} "
            "sampled jobs have other outputs); nothing was accepted. Run snakemake to update the results, or correct "
            "the code. (Other library versions or another processor can also change outputs.)"
        )
