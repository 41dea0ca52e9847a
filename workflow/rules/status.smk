# Show the progress of the grid without starting jobs; can be used during a run.

from rib.reporting.settings import StatusSettings


def status_settings(wildcards):
    """Settings of `snakemake status`."""
    settings = StatusSettings(
        records=RECORDS_BY_STAGE,
        jobs_at_once=int(os.environ[JOBS_AT_ONCE]),
        logs=Path(LOGS),
    )
    return to_params(settings)


rule status:
    log:
        "logs/status.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=status_settings,
    script:
        "../scripts/status.py"
