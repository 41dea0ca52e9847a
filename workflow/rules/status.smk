# Show the progress of the grid without starting jobs; can be used during a run.


rule status:
    log:
        "logs/status.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=lambda w: {"records": RECORDS_BY_STAGE, "jobs_at_once": workflow.nodes or workflow.cores},
    script:
        "../scripts/status.py"
