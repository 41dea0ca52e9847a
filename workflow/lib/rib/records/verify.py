"""Check a grid's results, and everything that they were made from, against provenance records.

This module does not import torch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.progress import log, print_lines
from rib.records import provenance
from rib.records.hashing import hashes
from rib.records.integrity import files_of_manifest

SHOWN = 10  # printed files per kind; the log has all
# Kinds of findings.
CHANGED = "changed"
MISSING = "missing"
STALE = "stale"
UNRECORDED = "unrecorded"
# Description of each kind, and advice for rib.records.provenance.remedy.
ADVICE = {
    CHANGED: ("edited or damaged after it was made", provenance.REMEDY),
    MISSING: ("missing", "If shared, run `rib pull`; otherwise run `snakemake {files}`."),
    STALE: (
        "made from other inputs than the current ones",
        "Make it again with `snakemake --forcerun {files}`, or restore the inputs of its record.",
    ),
    UNRECORDED: (
        "without a provenance record",
        "If shared, restore the record with `rib pull`; otherwise run `snakemake --forcerun "
        "{files}`.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """A difference from the records."""

    kind: str  # a key of ADVICE
    file: str  # the affected file; for a stale job its first output
    job: str  # path of the job's record
    why: str = ""  # for users; empty if the kind says enough


@dataclass
class Examination:
    """Findings of `examine`, and the compared records and hashes."""

    # Records of the examined jobs, by path.
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Records (paths) of jobs that were not run yet, or not pulled.
    absent: list[str] = field(default_factory=list)
    # SHA-256 of every recorded file; None if it is missing.
    hashes: dict[str, str | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def related(
    records: Iterable[str], gathered: Mapping[str, list[dict[str, Any]]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Records of jobs, and of all jobs that made their inputs, directly or not.

    The job that made a file is found in the gathered records, or by a record in the file's folder.

    Args:
        records: paths of the jobs' own records, such as
            results/emoji/paper/finetune/net/noto/ft/all/0/provenance.json.
        gathered: gathered records by path of the job's own record.

    Returns:
        By path of each job's record, a list with its own record, or else its gathered records,
            possibly none; and the path of the record for each output file:
            `({"a/provenance.json": [{...}]}, {"a/b.npy": "a/provenance.json"})`.
    """
    record_of_output: dict[str, str] = {}
    for path, gathered_records in gathered.items():
        for record in gathered_records:
            record_of_output.update(dict.fromkeys(record["outputs"], path))
    records_by_path: dict[str, list[dict[str, Any]]] = {}
    searched_folders: set[Path] = set()
    to_read = list(records)
    while to_read:
        path = to_read.pop()
        if path in records_by_path:
            continue
        own_record = provenance.read(Path(path))
        if own_record:
            records_by_path[path] = [own_record]
        else:
            records_by_path[path] = gathered.get(path, [])
        for record in records_by_path[path]:
            record_of_output.update(dict.fromkeys(record["outputs"], path))
            for file in record["inputs"]:
                folder = Path(file).parent
                is_made_by_job = file.startswith(provenance.MADE)
                if file in record_of_output:
                    to_read.append(record_of_output[file])
                elif is_made_by_job and folder not in searched_folders:
                    searched_folders.add(folder)
                    to_read += map(str, folder.glob(f"*{provenance.ENDING}"))
    return dict(sorted(records_by_path.items())), record_of_output


def examine(records: Iterable[str]) -> Examination:
    """Compare the files of jobs, and of all jobs that they depend on, with the records.

    Args:
        records: paths of the jobs' own records.
    """
    examination = Examination()
    gathered = provenance.load()
    records_by_path, record_of_output = related(records, gathered)
    wrong_files: set[str] = set()  # files with a finding
    for path, records_of_job in records_by_path.items():
        _examine_record(path, records_of_job, gathered.get(path), examination, wrong_files)
    examination.hashes = _hashes_of_recorded_files(
        records_by_path[path] for path in examination.records
    )
    for path in examination.records:
        record = _best_match(records_by_path[path], examination.hashes)
        examination.records[path] = record
        examination.findings += _findings_on_outputs(path, record, examination.hashes)
    wrong_files |= {finding.file for finding in examination.findings}
    for path, record in examination.records.items():
        examination.findings += _findings_on_inputs(
            path, record, examination.hashes, record_of_output, wrong_files
        )
        examination.findings += _findings_on_manifests(path, record, wrong_files)
    return examination


def _hashes_of_recorded_files(
    records_of_jobs: Iterable[list[dict[str, Any]]],
) -> dict[str, str | None]:
    """SHA-256 of all inputs and outputs in records; None for a missing file."""
    recorded_files: set[str] = set()
    for records_of_job in records_of_jobs:
        for record in records_of_job:
            recorded_files.update(record["outputs"])
            recorded_files.update(record["inputs"])
    current_hashes = hashes(map(Path, sorted(recorded_files)), "hashing")
    return {str(path): digest for path, digest in current_hashes.items()}


def _examine_record(
    path: str,
    records_of_job: list[dict[str, Any]],
    gathered: list[dict[str, Any]] | None,
    examination: Examination,
    wrong_files: set[str],
) -> None:
    """Add a job's record, and a finding if the record is wrong or missing, to `examination`.

    Files that need no further finding are added to `wrong_files`.

    `records_of_job` is the record or, without it, `gathered`: the job's lines in provenance.jsonl.
    """
    files_of_job = _files_beside(Path(path))
    if not Path(path).is_file():
        _examine_job_without_record(path, records_of_job, files_of_job, examination)
        return
    if records_of_job:
        examination.records[path] = records_of_job[0]
    finding = _finding_on_record(path, gathered)
    if finding:
        examination.findings.append(finding)
        if not records_of_job:  # without a readable record, nothing states hashes of these files
            wrong_files.update(files_of_job)


def _examine_job_without_record(
    path: str,
    gathered: list[dict[str, Any]],
    files_of_job: list[str],
    examination: Examination,
) -> None:
    """Note the job as absent (not run, or not pulled) if it has no files; else add a finding."""
    outputs = files_of_job
    has_output = False
    if gathered:
        outputs = list(gathered[0]["outputs"])
        has_output = any(Path(file).exists() for file in outputs)
    if not has_output and not files_of_job:
        examination.absent.append(path)
        return
    if has_output:
        examination.records[path] = gathered[0]
    first_file = outputs[0] if outputs else path
    examination.findings.append(Finding(UNRECORDED, first_file, path, "no record"))


def _finding_on_record(path: str, gathered: list[dict[str, Any]] | None) -> Finding | None:
    """What is wrong with an existing record: damaged, another job's or old; None if nothing."""
    record = provenance.read(Path(path))
    if record is None:
        return Finding(CHANGED, path, path, f"it {provenance.DAMAGED}")
    folder = Path(path).parent
    if not all(Path(file).is_relative_to(folder) for file in record["outputs"]):
        return Finding(CHANGED, path, path, "another job's")
    if gathered and provenance.contradicts(record, gathered):
        return Finding(CHANGED, path, path, f"differs from {provenance.FILE} and is not newer")
    return None


def _files_beside(record: Path) -> list[str]:
    """Outputs of a job without a record, by name: emoji.* belong to emoji.provenance.json."""
    prefix = record.name.removesuffix(provenance.ENDING)
    prefixes_of_others = []
    for path in record.parent.glob(f"?*.{provenance.ENDING}"):
        prefixes_of_others.append(path.name.removesuffix(provenance.ENDING))
    files = []
    for path in record.parent.glob(f"{prefix}*"):
        # The job of provenance.json, without a prefix, writes all other files.
        is_of_other_job = not prefix and path.name.startswith(tuple(prefixes_of_others))
        is_output = path.is_file() and path != record and path.suffix not in (".dvc", ".tmp")
        if is_output and not is_of_other_job:
            files.append(str(path))
    return sorted(files)


def _best_match(
    records: list[dict[str, Any]], current_hashes: Mapping[str, str | None]
) -> dict[str, Any]:
    """The job's record with most matching outputs; merged branches may leave several."""

    def count_matching_outputs(record: dict[str, Any]) -> int:
        outputs = record["outputs"].items()
        return sum(current_hashes[file] == digest for file, digest in outputs)

    return max(records, key=count_matching_outputs)


def _findings_on_outputs(
    path: str, record: Mapping[str, Any], current_hashes: Mapping[str, str | None]
) -> Iterator[Finding]:
    """Yields a finding for each output that is missing or has another hash."""
    for file, digest in record["outputs"].items():
        if current_hashes[file] is None:
            yield Finding(MISSING, file, path)
        elif current_hashes[file] != digest:
            yield Finding(CHANGED, file, path)


def _findings_on_inputs(
    path: str,
    record: Mapping[str, Any],
    current_hashes: Mapping[str, str | None],
    record_of_output: Mapping[str, str],
    wrong_files: set[str],
) -> Iterator[Finding]:
    """Yields findings on missing, unrecorded and changed inputs, except `wrong_files`.

    Missing and unrecorded inputs are added to `wrong_files`, which have a finding already.
    """
    outputs = list(record["outputs"])
    first_output = outputs[0] if outputs else path
    for file, recorded_hash in record["inputs"].items():
        if file in wrong_files:
            continue
        current_hash = current_hashes[file]
        is_made_by_known_job = file in record_of_output
        is_record = file.endswith(provenance.ENDING)
        lies_where_jobs_write = file.startswith(provenance.MADE)
        is_unrecorded = lies_where_jobs_write and not is_made_by_known_job and not is_record
        if is_unrecorded and current_hash is not None:
            wrong_files.add(file)
            yield Finding(UNRECORDED, file, path, "no record")
        elif not is_unrecorded and current_hash is None and not is_made_by_known_job:
            wrong_files.add(file)
            yield Finding(MISSING, file, path, f"an input of {first_output}")
        elif current_hash not in (None, recorded_hash):
            yield Finding(STALE, first_output, path, f"{file} differs from the record")


def _findings_on_manifests(
    path: str, record: Mapping[str, Any], wrong_files: set[str]
) -> Iterator[Finding]:
    """Yields a finding for each manifest that contradicts its record on a file's hash."""
    recorded = record["inputs"] | record["outputs"]
    for manifest in record["outputs"]:
        if not manifest.endswith("manifest.json") or manifest in wrong_files:
            continue
        for listed_file, digest in files_of_manifest(Path(manifest)).items():
            file = str(listed_file)
            if recorded.get(file, digest) != digest:
                problem = f"states another hash of {file} than its record"
                yield Finding(CHANGED, manifest, path, problem)
                break


def verify(patterns: Sequence[str], log_file: str) -> None:
    """Print differences from the records, with advice.

    Args:
        patterns: glob patterns of folders or records; their jobs and all jobs that they depend on
            are checked.
        log_file: path of the log, for the message.

    Raises:
        UserError: there are differences; the log lists all.
    """
    found = [path for pattern in patterns for path in Path().glob(pattern)]
    records_here = map(str, provenance.below(found))
    shared = [path for path in provenance.load() if _is_in(path, patterns)]
    examination = examine([*records_here, *shared])
    files = [file for file, digest in examination.hashes.items() if digest]
    size = sum(Path(file).stat().st_size for file in files)
    print_lines(f"verified {len(examination.records)} jobs, {len(files)} files, {in_bytes(size)}")
    if examination.absent:
        print_lines(
            f"{len(examination.absent)} jobs have no files here: not run yet, or not pulled"
        )
    findings = examination.findings
    print_lines(*report_lines(findings))
    for finding in findings:
        description, _ = ADVICE[finding.kind]
        reason = finding.why or description
        log.debug("%s: %s (%s; job %s)", finding.kind, finding.file, reason, finding.job)
    if findings:
        jobs = {finding.job for finding in findings}
        raise UserError(
            f"{len(findings)} differences from the records in {len(jobs)} jobs; {log_file} lists "
            "all of them."
        )


def _is_in(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches a pattern, or lies in a folder that does."""
    return any(
        fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*") for pattern in patterns
    )


def report_lines(findings: Iterable[Finding]) -> list[str]:
    """Lines such as `missing: 2`, below each its first files and advice."""
    findings = list(findings)
    lines = []
    for kind in ADVICE:
        findings_of_kind = [finding for finding in findings if finding.kind == kind]
        if findings_of_kind:
            lines += _report_lines_of_kind(kind, findings_of_kind)
    return lines or ["all files match their records"]


def _report_lines_of_kind(kind: str, findings: list[Finding]) -> list[str]:
    """Heading, first files and advice: ["missing: 1", "  a.npy", "  If shared, run ..."]."""
    description, advice = ADVICE[kind]
    # Count a job as stale once, however many of its inputs differ.
    last_finding_on_file = {finding.file: finding for finding in findings}
    findings_by_file = list(last_finding_on_file.values())
    heading = f"{description}: {len(findings_by_file)}"
    if len(findings) > len(findings_by_file):
        heading += f" (of {len(findings)} inputs)"
    lines = [heading]
    for finding in findings_by_file[:SHOWN]:
        reason = f" ({finding.why})" if finding.why else ""
        lines.append(f"  {finding.file}{reason}")
    if len(findings_by_file) > SHOWN:
        lines.append(f"  and {len(findings_by_file) - SHOWN} more")
    first_files = [finding.file for finding in findings_by_file[:3]]
    lines.append(f"  {provenance.remedy(first_files, advice)}")
    return lines
