# Check results and their inputs against the provenance records; starts no jobs.

# Records of the grid's jobs; the jobs that they depend on are found through their inputs.
GRID_RECORDS = [*UPSTREAM, *SHOWN_RECORDS, f"{METRICS}/index.provenance.json"]


use rule status as verify with:
    log:
        "logs/verify.log",
    params:
        cfg=lambda w: {
            "function": "rib.records.verify:verify",
            "records": [*GRID_RECORDS, PUBLICATION["provenance"]],
            "folders": [METRICS, REPORTS, f"{RUNS}/export"],
            "log_file": "logs/verify.log",
        },
