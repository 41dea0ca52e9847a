# Check results and their inputs against the provenance records; starts no jobs.

from rib.records.settings import VerifySettings

# Records of the grid's jobs; the jobs that they depend on are found through their inputs.
GRID_RECORDS = [*UPSTREAM, *SHOWN_RECORDS, f"{METRICS}/index.provenance.json"]


def verify_settings(w):
    """Settings of `snakemake verify`."""
    records = [*GRID_RECORDS, PUBLICATION["provenance"]]
    record_of_bundle = f"{REPORTS}/bundle.provenance.json"
    if Path(record_of_bundle).is_file():  # a bundle is no part of a run
        records.append(record_of_bundle)
    settings = VerifySettings(
        records=records,
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
