"""Jobs of Snakemake's graph and scheduler, as objects of our own.

No documented interface tells a Snakefile which jobs will run, and why.
tests/workflow/test_console.py notices a change of what is used here,
tests/unit/test_console_lines.py a change of the names of reasons.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

CODE_OR_SETTINGS_CHANGED = "settings or code changed"
# Snakemake's names of the reasons to run a job, and what a dry-run shows for them. Of several, the
# first is shown.
REASONS = {
    "forced": "forced",
    "output files have to be generated": "not made yet",
    "incomplete output files": "not finished",
    "params have changed since last execution": CODE_OR_SETTINGS_CHANGED,
    "code has changed since last execution": CODE_OR_SETTINGS_CHANGED,
    "set of input files has changed since last execution": "has other inputs",
    "updated input files": "an input is newer",
    "input files updated by another job": "an input is made again",
}


@dataclass(frozen=True)
class Job:
    """A job of Snakemake's graph."""

    number: int  # by which Snakemake's messages refer to it
    rule: str
    wildcards: Mapping[str, str]
    outputs: tuple[str, ...]
    log_file: str | None
    only_names_targets: bool  # of a rule without commands, such as `all`

    def __str__(self) -> str:
        """Rule and wildcards: `finetune net/red/ft/all/0`."""
        return f"{self.rule} {'/'.join(self.wildcards.values())}".rstrip()


def _described(job) -> Job:
    """Our description of an object of Snakemake's."""
    return Job(
        number=job.jobid,
        rule=job.rule.name,
        wildcards=dict(job.wildcards_dict),
        outputs=tuple(job.output),
        log_file=job.log[0] if job.log else None,
        only_names_targets=job.rule.norun,
    )


def jobs_to_run(workflow) -> list[Job]:
    """Jobs that this call runs (`dag.needrun_jobs`), known when Snakemake has built its graph."""
    return [_described(job) for job in workflow.dag.needrun_jobs()]


def failed_jobs(workflow) -> Iterator[Job]:
    """Jobs that have failed (`scheduler.failed`), also those of a group on a cluster."""
    for job_or_group in workflow.scheduler.failed:
        jobs = job_or_group if job_or_group.is_group() else [job_or_group]
        yield from map(_described, jobs)


def reasons_by_rule(workflow) -> Mapping[str, Mapping[str, int]]:
    """How many jobs a dry-run would run, by reason, by rule (`dag.reason`)."""
    reasons_of_rules = defaultdict(Counter)
    for job in workflow.dag.needrun_jobs(exclude_finished=False):
        reason = reason_to_run(workflow.dag.reason(job).get_names())
        if reason and not job.rule.norun:
            reasons_of_rules[job.rule.name][reason] += 1
    return reasons_of_rules


def reason_to_run(names: Iterable[str]) -> str | None:
    """The reason that a dry-run shows for a job, from Snakemake's names; None if it has none."""
    names_of_job = set(names)
    for name, shown_reason in REASONS.items():
        if name in names_of_job:
            return shown_reason
    return None
