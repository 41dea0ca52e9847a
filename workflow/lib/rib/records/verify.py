"""Check the results of a grid, and everything they were made from, against the provenance records. No torch."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.progress import log
from rib.records import provenance
from rib.records.hashing import hashes

MADE = ("data/raw/", "results/", "reports/")  # every file here was made by a job
SHOWN = 10  # printed files per kind; the log lists all
CHANGED, MISSING, STALE, UNRECORDED = "changed", "missing", "stale", "unrecorded"
# Description of each kind, and advice.
ADVICE = {
    CHANGED: (
        "edited or damaged after it was made",
        "If shared, restore it with `dvc pull --force {files}`; otherwise delete it and run `snakemake {files}`.",
    ),
    MISSING: ("missing", "If shared, restore it with `dvc pull {files}`; otherwise run `snakemake {files}`."),
    STALE: (
        "made from other inputs than the current ones",
        "Make it again with `snakemake --forcerun {files}`, or restore the inputs of its record.",
    ),
    UNRECORDED: (
        "without a provenance record",
        "If shared, restore the record with `dvc pull`; otherwise run `snakemake --forcerun {files}`.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """A difference from the records.

    Attributes:
        kind: a key of ADVICE.
        file: the affected file; for a stale job its first output.
        job: path of the job's record.
        why: explanation for users; empty if the kind is explanation enough.
    """

    kind: str
    file: str
    job: str
    why: str = ""


@dataclass
class Examination:
    """Result of `examine`.

    Attributes:
        records: records of the examined jobs, by path.
        absent: paths of records of jobs without any files here: not run yet, or not pulled.
        hashes: hash of every file that a record names; None if it is missing.
        findings: all differences.
    """

    records: dict[str, dict] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    hashes: dict[str, str | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def related(records: Iterable[str]) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Records of jobs and of all jobs that they depend on.

    Args:
        records: paths of jobs' own records.

    Returns:
        By path, the job's own record, or else the gathered ones, possibly none; and, by output file, the path of the
        record of the job that made it.
    """
    gathered = provenance.load()
    found: dict[str, list[dict]] = {}
    makers = {file: path for path, lines in gathered.items() for line in lines for file in line["outputs"]}
    looked: set[Path] = set()
    todo = list(dict.fromkeys(records))
    while todo:
        path = todo.pop()
        if path in found:
            continue
        own = provenance.read(Path(path))
        found[path] = [own] if own else gathered.get(path, [])
        for record in found[path]:
            makers |= dict.fromkeys(record["outputs"], path)
            for file in record["inputs"]:
                if file in makers:
                    todo.append(makers[file])
                elif (folder := Path(file).parent) not in looked and file.startswith(MADE):
                    looked.add(folder)
                    todo += map(str, folder.glob(f"*{provenance.ENDING}"))
    return dict(sorted(found.items())), makers


def examine(records: Iterable[str]) -> Examination:
    """Hash all inputs and outputs of jobs, and compare them with the records.

    Args:
        records: paths of the records of the grid's jobs; the jobs they depend on are found through their inputs.
    """
    result = Examination()
    known, makers = related(records)
    for path, lines in known.items():
        here = Path(path).is_file()
        left = _left_beside(Path(path))
        if lines and (here or any(Path(file).exists() for file in lines[0]["outputs"])):
            result.records[path] = lines[0]
        elif not left and not here:
            result.absent.append(path)
            continue
        if not here or not provenance.read(Path(path)) or _is_foreign(path, lines[0]):
            why = "damaged, or another job's" if here else "no record"
            result.findings.append(
                Finding(UNRECORDED, next(iter(lines[0]["outputs"] if lines else left), path), path, why)
            )
    files = {
        file for path in result.records for line in known[path] for part in ("outputs", "inputs") for file in line[part]
    }
    result.hashes = {str(path): digest for path, digest in hashes(map(Path, sorted(files)), "hashing").items()}
    for path, lines in known.items():
        if path in result.records:  # merged branches may have left several lines: use the best match
            result.records[path] = max(lines, key=lambda line: _agreeing(line["outputs"], result.hashes))
            result.findings += _of_outputs(path, result.records[path], result.hashes)
    wrong = {finding.file for finding in result.findings}
    for path, record in result.records.items():
        result.findings += _of_inputs(path, record, result.hashes, makers, wrong)
    return result


def _agreeing(made: Mapping[str, str], found: Mapping[str, str | None]) -> int:
    return sum(found[file] == digest for file, digest in made.items())


def _is_foreign(path: str, record: Mapping) -> bool:
    """Whether a record was copied from another job."""
    return any(Path(file).parent != Path(path).parent for file in record["outputs"])


def _left_beside(record: Path) -> list[str]:
    """Files where the job of this record writes its outputs."""
    prefix = record.name.removesuffix(provenance.ENDING)
    found = record.parent.glob(f"{prefix}*") if record.parent.is_dir() else []
    # Several jobs may write to one folder, with different prefixes; at most one has none.
    others = [file.name.removesuffix(provenance.ENDING) for file in record.parent.glob(f"?*.{provenance.ENDING}")]
    mine = (file for file in found if prefix or not file.name.startswith(tuple(others)))
    return sorted(
        str(file) for file in mine if file.is_file() and file != record and file.suffix not in (".dvc", ".tmp")
    )


def _of_outputs(path: str, record: Mapping, found: Mapping[str, str | None]) -> Iterable[Finding]:
    for file, digest in record["outputs"].items():
        if found[file] is None:
            yield Finding(MISSING, file, path)
        elif found[file] != digest:
            yield Finding(CHANGED, file, path)


def _of_inputs(
    path: str, record: Mapping, found: Mapping[str, str | None], makers: Mapping[str, str], wrong: set[str]
) -> Iterable[Finding]:
    """Findings about a job's inputs that are not already reported for the jobs that made them."""
    own = next(iter(record["outputs"]), path)
    for file, digest in record["inputs"].items():
        if file.startswith(MADE) and file not in makers and not file.endswith(provenance.ENDING):
            if found[file] is not None and file not in wrong:
                wrong.add(file)
                yield Finding(UNRECORDED, file, path, "no record")
        elif found[file] is None and file not in makers and file not in wrong:
            wrong.add(file)
            yield Finding(MISSING, file, path, f"an input of {own}")
        if found[file] not in (None, digest) and file not in wrong:
            yield Finding(STALE, own, path, f"{file} differs from the record")


def verify(records: Iterable[str], log_file: str) -> None:
    """Print differences from the records, with advice.

    Args:
        records: see `examine`.
        log_file: log that lists all differences.

    Raises:
        UserError: There are differences.
    """
    seen = examine(records)
    files = [file for file, digest in seen.hashes.items() if digest]
    size = sum(Path(file).stat().st_size for file in files)
    print(f"verified {len(seen.records)} jobs, {len(files)} files, {in_bytes(size)}")
    if seen.absent:
        print(f"{len(seen.absent)} jobs have no files here: not run yet, or not pulled")
    print("\n".join(report_lines(seen.findings)))
    for finding in seen.findings:
        log.debug(
            "%s: %s (%s; job %s)", finding.kind, finding.file, finding.why or ADVICE[finding.kind][0], finding.job
        )
    if seen.findings:
        jobs = len({finding.job for finding in seen.findings})
        raise UserError(
            f"{len(seen.findings)} differences from the records in {jobs} jobs; {log_file} lists all of them."
        )


def report_lines(findings: Iterable[Finding]) -> list[str]:
    """Report lines: the number of findings of each kind, their files and advice."""
    lines, counted = [], Counter(finding.kind for finding in findings)
    for kind, (what, advice) in ADVICE.items():
        # A job is counted as stale once, however many of its inputs differ.
        some = list({finding.file: finding for finding in findings if finding.kind == kind}.values())
        if not some:
            continue
        lines.append(f"{what}: {len(some)}" + (f" (of {counted[kind]} inputs)" if counted[kind] > len(some) else ""))
        lines += [f"  {finding.file}" + (f" ({finding.why})" if finding.why else "") for finding in some[:SHOWN]]
        lines += [f"  and {len(some) - SHOWN} more"] if len(some) > SHOWN else []
        lines.append(f"  {advice.format(files=' '.join(finding.file for finding in some[:3]))}")
    return lines or ["all files match their records"]
