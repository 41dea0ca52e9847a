# Check results and their inputs against the provenance records; starts no jobs.

# Records of the grid's jobs; the jobs that they depend on are found through their inputs.
GRID_RECORDS = [*UPSTREAM, *SHOWN_RECORDS, f"{REPORTS}/index.provenance.json"]


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
