# Whether what was made, and what it was made from, is still what the records say; starts nothing.

# Records of the grid's jobs; those of other jobs that they hang on are found through their inputs.
GRID_RECORDS = [*UPSTREAM, *RECORDS, f"{REPORTS}/index.provenance.json"]


rule verify:
    log:
        "logs/verify.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=lambda w: {"records": GRID_RECORDS, "reports": REPORTS},
    script:
        "../scripts/verify.py"
