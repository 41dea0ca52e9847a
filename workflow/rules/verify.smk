# Check results and their inputs against the provenance records; starts no jobs.

from rib.records.settings import VerifySettings

# Records of the grid's jobs; the jobs that they depend on are found through their inputs.
GRID_RECORDS = [*UPSTREAM, *SHOWN_RECORDS, f"{METRICS}/index.provenance.json"]


def verify_settings(wildcards):
    """Settings of `snakemake verify`."""
    settings = VerifySettings(
        records=[*GRID_RECORDS, PUBLICATION["provenance"]],
        folders=[METRICS, REPORTS, f"{RUNS}/export"],
        log_file="logs/verify.log",
    )
    return to_params(settings)


rule verify:
    log:
        "logs/verify.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=verify_settings,
    script:
        "../scripts/verify.py"
