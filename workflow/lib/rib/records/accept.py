"""Keep results after a change of code that does not change them, checked on a sample of jobs.

A job's settings contain a digest of its code, so a refactoring re-runs every job that uses the
changed code. Instead, a sample of jobs is re-run with the current code. If its outputs are
identical, all results are accepted. Their records state the time, the digests and the sample. No
torch.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.progress import log, print_lines
from rib.records import provenance
from rib.records.environment import commit
from rib.records.hashing import differing
from rib.records.verify import examine

SAMPLE = "RIB_ACCEPT_SAMPLE"  # environment variable: how many jobs of each kind to re-run
USUAL = 2  # jobs of each kind without the variable


def sample_size(text: str) -> int:
    """The number of jobs per kind that the environment variable requests.

    Raises:
        UserError: It is not a positive integer.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"{SAMPLE} is '{text}'; set it to a positive integer: the number of jobs per kind to "
            "re-run."
        )
    return int(text)


def sample_of(changes: Mapping[str, Mapping[str, Any]], number: int) -> list[str]:
    """Records of jobs of each kind, from different models if possible.

    Jobs are taken in the order of the hashes of their paths, hence always the same ones. The first
    job of each model comes before the second job of any.

    Args:
        changes: `kind` and `model` of each job, by path of the record.
        number: jobs per kind.
    """
    jobs_of_model: Counter[tuple[str, str]] = Counter()  # by kind and model
    # By kind, for each job its number among those of its model, and its record.
    numbered_jobs: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for path in sorted(changes, key=_hash_of_path):
        kind = changes[path]["kind"]
        model = changes[path]["model"]
        jobs_of_model[kind, model] += 1
        numbered_jobs[kind].append((jobs_of_model[kind, model], path))
    sample = []
    for jobs_of_kind in numbered_jobs.values():
        # The sort is stable, so that jobs of one number stay in the order of their hashes.
        first_of_each_model_first = sorted(jobs_of_kind, key=itemgetter(0))
        for _, path in first_of_each_model_first[:number]:
            sample.append(path)
    return sorted(sample)


def _hash_of_path(path: str) -> str:
    """A hash by which paths are in an order that has nothing to do with their names."""
    return hashlib.sha256(path.encode()).hexdigest()


def accept(
    changes: Mapping[str, Mapping[str, Any]],
    number: int,
    rerun: Callable[[list[str]], AbstractContextManager[Path]],
    notify: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Accept the results of jobs with changed code if re-running a sample gives identical outputs.

    Args:
        changes: the jobs whose code has changed, by path of their record. Of each job, `code` is
            the digest of the code as it is now, and `kind` and `model` are those of the job.
        number: how many jobs of each kind to re-run.
        rerun: re-runs jobs, given as paths of their records, in another folder and yields that
            folder.
        notify: notifies Snakemake of a rewritten record.

    Raises:
        UserError: A sampled job fails or has different outputs; no record was changed.
    """
    acceptable = _changes_of_sound_jobs(changes)
    n_left_out = len(changes) - len(acceptable)
    if n_left_out:
        print_lines(
            "not accepted, because inputs or outputs are missing or differ from the record: "
            f"{n_left_out} jobs"
        )
    if not acceptable:
        print_lines("nothing to accept: there is no finished job with a change of code only")
        return
    sample = sample_of(acceptable, number)
    print_lines(
        f"only the code has changed for {len(acceptable)} jobs; re-running {len(sample)} in "
        "another folder"
    )
    with rerun(sample) as folder:
        _refuse_other_outputs(sample, folder, acceptable)
    _rewrite_records(acceptable, sample, notify)
    print_lines(
        f"the outputs of {len(sample)} sampled jobs are identical: {len(acceptable)} jobs accepted"
    )
    print_lines(
        "`snakemake -n` lists the remaining jobs; if results are shared, run `snakemake track` "
        "again"
    )


def _changes_of_sound_jobs(
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Mapping[str, Any]]:
    """The changes of jobs whose inputs and outputs are here and match the record."""
    examination = examine(changes)
    jobs_with_findings = {finding.job for finding in examination.findings}
    sound = {}
    for path, change in changes.items():
        record = examination.records.get(path)
        if record is None or path in jobs_with_findings:
            continue
        if record["inputs"].items() <= examination.hashes.items():
            sound[path] = change
    return sound


def _rewrite_records(
    changes: Mapping[str, Mapping[str, Any]],
    sample: list[str],
    notify: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Write the current code digest and the sample that it was checked on to records of jobs."""
    time_of_acceptance = datetime.now(UTC).isoformat(timespec="seconds")
    current_commit = commit()
    for path, change in changes.items():
        record = provenance.read(Path(path))
        assert record is not None  # of a sound job
        sample_of_kind = [job for job in sample if changes[job]["kind"] == change["kind"]]
        acceptance = {
            "from": record["cfg"]["code"],
            "to": change["code"],
            "when": time_of_acceptance,
            "commit": current_commit,
            "sample": sample_of_kind,
        }
        record["accepted"] = [*record.get("accepted", []), acceptance]
        record["cfg"]["code"] = change["code"]
        # Before and after: if this process is killed in between, the next call still finds the job.
        notify(path, record)
        provenance.write(Path(path), record)
        notify(path, record)


def _refuse_other_outputs(
    sample: list[str], folder: Path, changes: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse the sample if a job ran with other code than the current one, or has other outputs.

    Args:
        folder: where the jobs of the sample were re-run.
    """
    for path in sample:
        new_record = provenance.read(folder / path)
        if new_record is None or new_record["cfg"]["code"] != changes[path]["code"]:
            raise UserError(
                f"the code changed while the sample ran ({path}); nothing was accepted, run it "
                "again."
            )
    expected = {}
    job_of_file = {}
    for path in sample:
        record = provenance.read(Path(path))
        assert record is not None  # of a sound job
        for file, digest in record["outputs"].items():
            expected[folder / file] = digest
            job_of_file[folder / file] = path
    different_files = differing(expected, "comparing")
    for file in different_files:
        log.info("different: %s (job %s)", file.relative_to(folder), job_of_file[file])
    if different_files:
        different_jobs = {job_of_file[file] for file in different_files}
        raise UserError(
            f"{different_files[0].relative_to(folder)} differs with the current code "
            f"({len(different_jobs)} of {len(sample)} sampled jobs have other outputs); nothing "
            "was accepted. Run snakemake to update the results, or correct the code. (Other "
            "library versions or another processor can also change outputs.)"
        )
