# Accuracy by slices, columns that a layout adds to a dataset's index: snakemake slices --config
# slices='[severity]'
# Uses INDEXED, TABLES, TABLES_OF_ROWS and table_files of metrics.smk, and SAMPLE_ROWS of
# samples.smk.

from rib.analyses.slices.settings import SliceSettings

SLICES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("accuracy_by_slice", "corruptions", "mce")
}


def read_alexnet_errors(file):
    """AlexNet's errors in percent by corruption, from a file of the catalogue."""
    rows = CATALOG.table(file, ("corruption", "error", "source"), ["error"])
    return {row["corruption"]: float(row["error"]) for row in rows}


# Of each dataset whose errors are relative to them.
ALEXNET = {
    name: read_alexnet_errors(dataset.relative_errors)
    for name, dataset in GRID.datasets.items()
    if dataset.relative_errors
}
# Of these, the models that see the photos as those of published errors did.
COMPARABLE = {
    dataset: [model for model in GRID.models if GRID.errors_are_as_published(model, dataset)]
    for dataset in ALEXNET
}
SHOWN_SLICES = {"slices": SLICES["accuracy_by_slice"]}
if ALEXNET:
    SHOWN_SLICES["mce"] = SLICES["mce"]

REGISTRY.analysis(
    "slices",
    tables=SHOWN_SLICES,
    files={"Accuracy by corruption and severity": [SLICES["corruptions"]]},
    optional=True,
)


def slice_settings(wildcards):
    """Settings of the job that computes accuracies by slices."""
    settings = SliceSettings(
        methods=methods_of(SAMPLE_RUNS),
        columns=CONFIG["slices"],
        relative_errors=ALEXNET,
        comparable=COMPARABLE,
        conditions=CONDITIONS,
        code=digest("compare_slices"),
    )
    return to_params(settings)


rule compare_slices:
    input:
        **INDEXED,
        manifests=beside("manifest", SAMPLE_ROWS),
        rows=ancient(SAMPLE_ROWS),
        fit=TABLES["fit"],
    output:
        **table_files("accuracy_by_slice", **SLICES),
    log:
        f"{LOGS}/slices.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=slice_settings,
    script:
        "../../scripts/compare_slices.py"
