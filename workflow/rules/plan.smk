# Estimate the cost of the grid before it is run.

from rib.reporting.settings import FeatureJob, FullRun, PlanSettings
from snakemake_internals.call import before_graph, targets_of
from snakemake_internals.full_run import jobs_of_full_run

# Wildcards of each job, by rule; known when `plan` itself is a job.
JOBS_OF_FULL_RUN = {}


def read_jobs_for_plan():
    """Read the jobs of the grid if the user asked for `plan`."""
    if "plan" in targets_of(workflow):
        JOBS_OF_FULL_RUN.update(jobs_of_full_run(workflow))


before_graph(workflow, read_jobs_for_plan)


def feature_jobs(rule, networks):
    """The jobs of a rule that computes features, each with a number of networks."""
    return [
        FeatureJob(
            run=RUN_PATH.format(**wildcards), dataset=wildcards["dataset"], networks=networks
        )
        for wildcards in JOBS_OF_FULL_RUN.get(rule, [])
    ]


def full_run():
    """The jobs of the grid, as a plan needs them."""
    return FullRun(
        jobs={rule: len(jobs) for rule, jobs in JOBS_OF_FULL_RUN.items()},
        snapshots=[
            RUN_PATH.format(**wildcards) for wildcards in JOBS_OF_FULL_RUN.get("keep_snapshots", [])
        ],
        features=[
            *feature_jobs("compute_features", networks=1),
            *feature_jobs("compute_epoch_features", networks=len(KEPT)),
        ],
    )


def plan_settings(wildcards):
    """Settings of `snakemake plan`."""
    settings = PlanSettings(
        config=CONFIG,
        catalog=FOLDERS,
        results=Path(f"results/{FAMILY}"),
        full_run=full_run(),
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
