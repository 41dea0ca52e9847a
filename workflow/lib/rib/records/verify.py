"""Check the results of a grid, and everything they were made from, against the provenance records. No torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.progress import log, print_lines
from rib.records import provenance
from rib.records.hashing import hashes
from rib.records.integrity import files_of

SHOWN = 10  # printed files per kind; the log lists all
CHANGED, MISSING, STALE, UNRECORDED = "changed", "missing", "stale", "unrecorded"
# Description of each kind, and advice (rib.records.provenance.remedy).
ADVICE = {
    CHANGED: ("edited or damaged after it was made", provenance.REMEDY),
    MISSING: ("missing", "If shared, run `snakemake pull`; otherwise run `snakemake {files}`."),
    STALE: (
        "made from other inputs than the current ones",
        "Make it again with `snakemake --forcerun {files}`, or restore the inputs of its record.",
    ),
    UNRECORDED: (
        "without a provenance record",
        "If shared, restore the record with `snakemake pull`; otherwise run `snakemake --forcerun {files}`.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """A difference from the records."""

    kind: str  # a key of ADVICE
    file: str  # the affected file; for a stale job its first output
    job: str  # path of the job's record
    why: str = ""  # explanation for users; empty if the kind is explanation enough


@dataclass
class Examination:
    """Result of `examine`."""

    records: dict[str, dict] = field(default_factory=dict)  # of the examined jobs, by path
    absent: list[str] = field(
        default_factory=list
    )  # paths of jobs without files here: not run yet, or not pulled
    hashes: dict[str, str | None] = field(
        default_factory=dict
    )  # of every file that a record names; None if missing
    findings: list[Finding] = field(default_factory=list)


def related(
    records: Iterable[str], gathered: Mapping | None = None
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Records of the jobs with the given own records, and of all jobs that they depend on; `gathered` if it is loaded.

    Returns:
        By path, the job's own record, or else the gathered ones, possibly none; and, by output file, the path of the
        record of the job that made it.
    """
    gathered = provenance.load() if gathered is None else gathered
    makers = {
        file: path for path, lines in gathered.items() for line in lines for file in line["outputs"]
    }
    found, looked, todo = {}, set(), list(records)
    while todo:
        if (path := todo.pop()) in found:
            continue
        own = provenance.read(Path(path))
        found[path] = [own] if own else gathered.get(path, [])
        for record in found[path]:
            makers |= dict.fromkeys(record["outputs"], path)
            for file in record["inputs"]:
                if file in makers:
                    todo.append(makers[file])
                elif (folder := Path(file).parent) not in looked and file.startswith(
                    provenance.MADE
                ):
                    looked.add(folder)
                    todo += map(str, folder.glob(f"*{provenance.ENDING}"))
    return dict(sorted(found.items())), makers


def examine(records: Iterable[str]) -> Examination:
    """Compare the files of jobs, given by paths of records, and of all that they depend on with the records."""
    result, gathered = Examination(), provenance.load()
    known, makers = related(records, gathered)
    wrong: set[str] = set()
    for path, lines in known.items():
        here, left = Path(path).is_file(), _left_beside(Path(path))
        if lines and (here or any(Path(file).exists() for file in lines[0]["outputs"])):
            result.records[path] = lines[0]
        elif not left and not here:
            result.absent.append(path)
            continue
        if not here:
            file = next(iter(lines[0]["outputs"] if lines else left), path)
            result.findings.append(Finding(UNRECORDED, file, path, "no record"))
        elif why := _of_record(path, gathered.get(path)):
            result.findings.append(Finding(CHANGED, path, path, why))
            wrong.update([] if lines else left)  # of an unreadable record
    files = {
        file
        for path in result.records
        for line in known[path]
        for file in line["outputs"] | line["inputs"]
    }
    result.hashes = found = {
        str(path): digest for path, digest in hashes(map(Path, sorted(files)), "hashing").items()
    }
    for path in result.records:  # merged branches may have left several lines: use the best match
        best = max(
            known[path],
            key=lambda line: sum(found[file] == digest for file, digest in line["outputs"].items()),
        )
        result.records[path] = best
        changed = {
            file: found[file] for file, digest in best["outputs"].items() if found[file] != digest
        }
        result.findings += [
            Finding(CHANGED if digest else MISSING, file, path) for file, digest in changed.items()
        ]
    wrong |= {finding.file for finding in result.findings}
    for path, record in result.records.items():
        result.findings += _of_inputs(path, record, found, makers, wrong)
        result.findings += _of_manifests(path, record, wrong)
    return result


def _of_record(path: str, gathered: list[dict] | None) -> str:
    """What is wrong with a job's own record; empty if nothing is."""
    if (own := provenance.read(Path(path))) is None:
        return f"it {provenance.DAMAGED}"
    if not all(Path(file).is_relative_to(Path(path).parent) for file in own["outputs"]):
        return "another job's"
    differs = gathered and provenance.contradicts(own, gathered)
    return f"differs from {provenance.FILE} and is not newer" if differs else ""


def _of_manifests(path: str, record: Mapping, wrong: set[str]) -> Iterable[Finding]:
    """Findings about a job's manifests that state another hash than its record, though they match it themselves."""
    recorded = record["inputs"] | record["outputs"]
    for manifest in (
        file for file in record["outputs"] if file.endswith("manifest.json") and file not in wrong
    ):
        stated = {str(file): digest for file, digest in files_of(Path(manifest)).items()}
        if other := [
            file for file, digest in stated.items() if recorded.get(file, digest) != digest
        ]:
            yield Finding(
                CHANGED, manifest, path, f"states another hash of {other[0]} than its record"
            )


def _left_beside(record: Path) -> list[str]:
    """Files where the job of this record writes its outputs."""
    prefix = record.name.removesuffix(provenance.ENDING)
    # Several jobs may write to one folder, with different prefixes; at most one has none.
    others = [
        file.name.removesuffix(provenance.ENDING)
        for file in record.parent.glob(f"?*.{provenance.ENDING}")
    ]
    mine = (
        file
        for file in record.parent.glob(f"{prefix}*")
        if prefix or not file.name.startswith(tuple(others))
    )
    return sorted(
        str(it)
        for it in mine
        if it.is_file() and it != record and it.suffix not in (".dvc", ".tmp")
    )


def _of_inputs(
    path: str,
    record: Mapping,
    found: Mapping[str, str | None],
    makers: Mapping[str, str],
    wrong: set[str],
) -> Iterable[Finding]:
    """Findings about a job's inputs that are not already reported for the jobs that made them."""
    own = next(iter(record["outputs"]), path)
    for file, digest in record["inputs"].items():
        if (
            file.startswith(provenance.MADE)
            and file not in makers
            and not file.endswith(provenance.ENDING)
        ):
            if found[file] is not None and file not in wrong:
                wrong.add(file)
                yield Finding(UNRECORDED, file, path, "no record")
        elif found[file] is None and file not in makers and file not in wrong:
            wrong.add(file)
            yield Finding(MISSING, file, path, f"an input of {own}")
        if found[file] not in (None, digest) and file not in wrong:
            yield Finding(STALE, own, path, f"{file} differs from the record")


def verify(records: Iterable[str], log_file: str, folders: Iterable[str] = ()) -> None:
    """Print differences from the records, with advice; see `examine`. Jobs with files in the folders are checked, too.

    Raises a UserError if there are differences, all of which the log lists.
    """
    seen = examine([*records, *map(str, provenance.below(map(Path, folders)))])
    files = [file for file, digest in seen.hashes.items() if digest]
    size = sum(Path(file).stat().st_size for file in files)
    print_lines(f"verified {len(seen.records)} jobs, {len(files)} files, {in_bytes(size)}")
    if seen.absent:
        print_lines(f"{len(seen.absent)} jobs have no files here: not run yet, or not pulled")
    print_lines(*report_lines(seen.findings))
    for finding in seen.findings:
        why = finding.why or ADVICE[finding.kind][0]
        log.debug("%s: %s (%s; job %s)", finding.kind, finding.file, why, finding.job)
    if seen.findings:
        found, jobs = len(seen.findings), len({finding.job for finding in seen.findings})
        raise UserError(
            f"{found} differences from the records in {jobs} jobs; {log_file} lists all of them."
        )


def report_lines(findings: Iterable[Finding]) -> list[str]:
    """Report lines: the number of findings of each kind, their files and advice."""
    lines = []
    for kind, (what, advice) in ADVICE.items():
        found = [finding for finding in findings if finding.kind == kind]
        # A job is counted as stale once, however many of its inputs differ.
        some = list({finding.file: finding for finding in found}.values())
        if not some:
            continue
        lines.append(
            f"{what}: {len(some)}"
            + (f" (of {len(found)} inputs)" if len(found) > len(some) else "")
        )
        lines += [
            f"  {finding.file}" + (f" ({finding.why})" if finding.why else "")
            for finding in some[:SHOWN]
        ]
        lines += [f"  and {len(some) - SHOWN} more"] if len(some) > SHOWN else []
        lines.append(f"  {provenance.remedy([finding.file for finding in some[:3]], advice)}")
    return lines or ["all files match their records"]
