# `snakemake bundle` writes one file with a run's tables and all that they follow from; `snakemake compare` checks and
# compares such files of several groups. Neither is part of a full run.

BUNDLE = f"{REPORTS}/{FAMILY}.rib.zip"


def files_of_bundle(w):
    """Files of a bundle besides the rows: facts of runs and datasets (the pretraining proxy's too), tables, and the page."""
    geometry, proxied = GEOMETRY_OF[FIRST_MODEL], any(map(GRID.excludes_proxy, GRID.datasets))
    datasets = dict.fromkeys([*GRID.datasets, *([GRID.reference.dataset.name] if proxied else [])])
    parts = ("manifest.json", "index.parquet", "classes.json")
    facts = [prepared(part, name, geometry) for name in datasets for part in parts]
    tables = [path for path in (*TABLES.values(), *COMPARISON.values()) if path.endswith(".csv")]
    CONSOLE.last_line = (
        f"Made: {BUNDLE}, to be sent to others, who compare it by `snakemake compare`."
    )
    return [*beside("manifest", ROWS), *facts, *splits_of(geometry, GRID.datasets), *tables, PAGE]


use rule compute_metrics as bundle with:
    input:
        rows=ROWS,
        more=files_of_bundle,
    output:
        bundle=BUNDLE,
        provenance=f"{REPORTS}/bundle.provenance.json",
    log:
        f"{LOGS}/bundle.log",
    params:
        cfg=lambda w: {
            "function": "rib.reporting.bundle:write_bundle",
            "records": [*GRID_RECORDS, f"{METRICS}/tables/comparison.provenance.json"],
            "config": ABOUT["config"],
            "code": digest(
                "tabulate", *(REPORTING / name for name in ("bundle.py", "foreign_parquet.py"))
            ),
        },


use rule status as compare with:
    log:
        "logs/compare.log",
    params:
        cfg={
            "function": "rib.reporting.compare:compare",
            "bundles": CONFIG["bundles"],
            "statistics": CONFIG["statistics"],
            "log_file": "logs/compare.log",
            "folder": "reports/compare",
        },
