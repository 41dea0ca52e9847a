"""The jobs of a run of the whole workflow, from Snakemake's graph.

Snakemake has no interface that tells a Snakefile this. tests/workflow/test_imagenet.py, which
compares `snakemake plan` with a dry-run, notices a change of what is used here.
"""

from snakemake.settings.types import DAGSettings


def jobs_of_full_run(workflow) -> dict[str, list[dict[str, str]]]:
    """Jobs of each rule if all results were made again: the wildcards of each, by name.

    Rules are in the order of their jobs; those without commands are left out. This builds a graph
    of its own (`_prepare_dag`, `_build_dag`), as Snakemake does for a dry-run with --forceall, and
    reads its jobs (`dag.stats`, `dag.needrun_jobs`). It must be called before Snakemake builds the
    graph of this call, as by `call.before_graph`, and leaves the settings of this call as they
    were.
    """
    settings_of_call = workflow.dag_settings
    workflow.dag_settings = DAGSettings(forceall=True)
    try:
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        _, jobs_by_rule = workflow.dag.stats()
        jobs = sorted(workflow.dag.needrun_jobs(), key=_wildcards_of)
    finally:
        workflow.dag_settings = settings_of_call
    wildcards_by_rule: dict[str, list[dict[str, str]]] = {}
    for rule in jobs_by_rule:
        is_rule = workflow.is_rule(rule)  # the last entry is the total
        if is_rule and not workflow.get_rule(rule).norun:
            wildcards_by_rule[rule] = []
    for job in jobs:
        if job.rule.name in wildcards_by_rule:
            wildcards_by_rule[job.rule.name].append(dict(job.wildcards_dict))
    return wildcards_by_rule


def _wildcards_of(job) -> list[tuple[str, str]]:
    """Names and values of a job's wildcards, sorted by name."""
    return sorted(job.wildcards_dict.items())
