# Estimate the cost of the grid before it is run.

from snakemake_internals.call import before_graph, targets_of
from snakemake_internals.full_run import count_jobs

JOBS_OF_FULL_RUN = {}  # number by rule; known when `plan` itself is a job


def count_jobs_for_plan():
    """Count the jobs of the grid if the user asked for `plan`."""
    if "plan" in targets_of(workflow):
        JOBS_OF_FULL_RUN.update(count_jobs(workflow))


before_graph(workflow, count_jobs_for_plan)


use rule status as plan with:
    log:
        "logs/plan.log",
    params:
        cfg=lambda w: {
            "function": "rib.reporting.cost_estimate:print_plan",
            "config": CONFIG,
            "catalog": FOLDERS,
            "results": f"results/{FAMILY}",
            "jobs": JOBS_OF_FULL_RUN,
        },
