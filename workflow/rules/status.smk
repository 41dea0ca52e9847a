# Show the progress of the grid without starting jobs; can be used during a run.


# The other rules that make no files inherit from this one.
rule status:
    log:
        "logs/status.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=lambda w: {
            "function": "rib.reporting.status:print_status",
            "records": RECORDS_BY_STAGE,
            "jobs_at_once": int(os.environ[JOBS_AT_ONCE]),
            "logs": LOGS,
        },
    script:
        "../scripts/look.py"
