"""Rules by the files that they make.

tests/workflow/test_refactoring.py and test_preview.py notice a change of what is used here.
"""

from collections.abc import Mapping

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


def wildcards_of(rule, path: str) -> Mapping[str, str]:
    """Wildcards of the job of a rule that makes a file (`get_wildcards`)."""
    return rule.get_wildcards(path)
