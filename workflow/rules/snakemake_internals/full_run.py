"""How many jobs a run of the whole workflow has, counted in Snakemake's graph.

Snakemake has no interface that tells a Snakefile this. tests/workflow/test_imagenet.py, which
compares `snakemake plan` with a dry-run, notices a change of what is used here.
"""

from snakemake.settings.types import DAGSettings


def count_jobs(workflow) -> dict[str, int]:
    """Number of jobs of each rule if all results were made again.

    Rules without commands are left out. This builds a graph of its own (`_prepare_dag`,
    `_build_dag`), as Snakemake does for a dry-run with --forceall, and counts its jobs
    (`dag.stats`). It must be called before Snakemake builds the graph of this call, as by
    `call.before_graph`, and leaves the settings of this call as they were.
    """
    settings_of_call = workflow.dag_settings
    workflow.dag_settings = DAGSettings(forceall=True)
    try:
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        _, jobs_by_rule = workflow.dag.stats()
    finally:
        workflow.dag_settings = settings_of_call
    jobs_with_commands = {}
    for rule, number in jobs_by_rule.items():
        is_rule = workflow.is_rule(rule)  # the last entry is the total
        if is_rule and not workflow.get_rule(rule).norun:
            jobs_with_commands[rule] = number
    return jobs_with_commands
