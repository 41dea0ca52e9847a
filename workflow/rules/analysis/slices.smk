# Accuracy by slices, columns that a layout adds to a dataset's index: snakemake slices --config
# slices='[severity]'

SLICES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("accuracy_by_slice", "corruptions", "mce")
}
# AlexNet's errors in percent by corruption, to which those of a dataset are relative.
ERRORS = ("corruption", "error", "source")
ALEXNET = {
    name: {
        row["corruption"]: float(row["error"])
        for row in CATALOG.table(e.relative_errors, ERRORS, ["error"])
    }
    for name, e in GRID.datasets.items()
    if e.relative_errors
}

REGISTRY.analysis(
    "slices",
    tables={"slices": SLICES["accuracy_by_slice"], **({"mce": SLICES["mce"]} if ALEXNET else {})},
    files={"Accuracy by corruption and severity": [SLICES["corruptions"]]},
    optional=True,
)


use rule compare_samples as compare_slices with:
    output:
        **table_files("accuracy_by_slice", **SLICES),
    log:
        f"{LOGS}/slices.log",
    params:
        cfg=tabulation(
            "analyses.slices.tables:slice_tables",
            slices=CONFIG["slices"],
            relative_errors=ALEXNET,
            conditions=CONDITIONS,
        ),
