# Estimate the cost of the grid before it is run.

from rib.reporting.settings import PlanSettings
from snakemake_internals.call import before_graph, targets_of
from snakemake_internals.full_run import count_jobs

JOBS_OF_FULL_RUN = {}  # number by rule; known when `plan` itself is a job


def count_jobs_for_plan():
    """Count the jobs of the grid if the user asked for `plan`."""
    if "plan" in targets_of(workflow):
        JOBS_OF_FULL_RUN.update(count_jobs(workflow))


before_graph(workflow, count_jobs_for_plan)


def plan_settings(wildcards):
    """Settings of `snakemake plan`."""
    settings = PlanSettings(
        config=CONFIG,
        catalog=FOLDERS,
        results=Path(f"results/{FAMILY}"),
        jobs=JOBS_OF_FULL_RUN,
        cores=stated_cores_of(workflow),
        gpus=gpus_of(workflow),
    )
    return to_params(settings)


rule plan:
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=plan_settings,
    script:
        "../scripts/plan.py"
