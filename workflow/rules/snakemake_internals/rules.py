"""Rules by the files that they make.

tests/workflow/test_preview.py notices a change of what is used here.
"""

from collections.abc import Iterable, Mapping

from snakemake.iocontainers import Wildcards


def settings_now(rule, path: str) -> Mapping | None:
    """Current settings of the job that makes a file; None if the grid has no such job.

    Uses Snakemake's `is_producer`, `get_wildcards` and `params` of a rule: a rule's settings can't
    be asked for otherwise without a graph of all jobs.
    """
    if not rule.is_producer(path):
        return None
    settings = rule.params.cfg
    if not callable(settings):
        return settings
    try:
        return settings(Wildcards(fromdict=rule.get_wildcards(path)))
    except KeyError:  # the model or method is no longer in the grid
        return None


def rule_named(workflow, name: str):
    """A rule by its name; None if the workflow has no such rule (`is_rule`, `get_rule`)."""
    return workflow.get_rule(name) if workflow.is_rule(name) else None


def rule_that_makes(rules: Iterable, path: str):
    """The one of some rules that makes a file; None if none does (`is_producer`)."""
    for rule in rules:
        if rule.is_producer(path):
            return rule
    return None


def inputs_of_job(rule, path: str) -> list[str]:
    """Inputs of the job of a rule that makes a file (`expand_input`)."""
    inputs, *_ = rule.expand_input(Wildcards(fromdict=rule.get_wildcards(path)))
    return [str(file) for file in inputs]


def log_of_job(rule, path: str) -> str:
    """Log file of the job of a rule that makes a file (`expand_log`)."""
    logs = rule.expand_log(Wildcards(fromdict=rule.get_wildcards(path)))
    return str(logs[0])
