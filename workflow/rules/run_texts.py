"""What the terminal shows of a run or a dry-run as a whole."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonpath
from pathlib import Path

from snakemake_internals.jobs import Job

from rib.records import provenance

# Endings of files beside results, which are not counted as made.
BESIDE_RESULTS = (provenance.ENDING, "manifest.json")
NAMED_FILES = 3  # of a folder with more files, the number is shown


def opening_line(jobs: Sequence[Job]) -> str:
    """Number of jobs by rule, before a run: `3 jobs: 2 finetune, 1 evaluate`."""
    jobs_by_rule = Counter(job.rule for job in jobs if not job.only_names_targets)
    counts = ", ".join(f"{number} {rule}" for rule, number in jobs_by_rule.items())
    return f"{jobs_by_rule.total()} jobs: {counts}"


def closing_line(outputs: Iterable[str]) -> str:
    """Where to look after a run: files by name, or many files of a folder as their number.

    An example is `Made: 120 files in results/emoji/, reports/emoji/index.html.`

    Args:
        outputs: of the jobs that ran, at least one.
    """
    paths = sorted(set(outputs))
    results = [path for path in paths if not path.endswith(BESIDE_RESULTS)]
    files_by_folder = defaultdict(list)
    for path in results or paths:
        files_by_folder[_folder_to_count_in(path)].append(path)
    phrases = []
    for _, files in sorted(files_by_folder.items()):
        if len(files) > NAMED_FILES:
            phrases.append(f"{len(files)} files in {commonpath(files)}/")
        else:
            phrases.extend(files)
    return f"Made: {', '.join(phrases)}."


def _folder_to_count_in(path: str) -> tuple[int, str]:
    """Position and name of the folder with which the closing line counts a file.

    Folders are in the order of the stages. Reports are counted by their own folders: tables,
    figures and the page. All files of an earlier stage are counted together.
    """
    *_, reports = provenance.MADE
    for position, stage_folder in enumerate(provenance.MADE):
        if path.startswith(stage_folder):
            folder = str(Path(path).parent) if stage_folder == reports else stage_folder
            return position, folder
    return len(provenance.MADE), str(Path(path).parent)


def dry_run_table(jobs_by_rule: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> str:
    """Table of the jobs of a dry-run, a line per rule, under a header.

    A line is for example `finetune      3  2 not made yet, 1 forced`.

    Args:
        jobs_by_rule: number of jobs, the last entry their total, as Snakemake counts them.
        reasons: number of jobs by reason, by rule.
    """
    header = ("job", "count", "reason")
    rows = []
    for rule, number in jobs_by_rule.items():
        rows.append((rule, str(number), _reasons_in_words(reasons.get(rule, {}))))
    columns = zip(header, *rows, strict=True)
    rule_width, number_width, reason_width = (max(map(len, column)) for column in columns)
    underline = ("-" * rule_width, "-" * number_width, "-" * reason_width)
    lines = []
    for rule, number, reason in [header, underline, *rows]:
        lines.append(f"{rule:<{rule_width}}  {number:>{number_width}}  {reason}".rstrip())
    return "\n".join(lines)


def _reasons_in_words(jobs_by_reason: Mapping[str, int]) -> str:
    """The reason of a rule's jobs, or `3 not made yet, 2 forced` if they have several."""
    if len(jobs_by_reason) == 1:
        (only_reason,) = jobs_by_reason
        return only_reason
    return ", ".join(f"{number} {reason}" for reason, number in jobs_by_reason.items())
