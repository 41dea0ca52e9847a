# Compute accuracies, RI and mRI with confidence intervals from the rows of the whole grid.

ROWS = rows_of(SHOWN_GRID.runs())
SOURCE_GROUPS = GRID.source_groups()
STATISTICS = {"conditions": CONDITIONS, "confidence": CONFIDENCE}
# Settings of every job that computes means of RI from rows or counts.
IN_RI = {"ood_datasets": GRID.ood, "source_groups": GRID.leak_free_groups()}
MEANS_OF_RI = {**IN_RI, "conditions": CONDITIONS, **CONFIG["statistics"]}
TABLE_NAMES = ("accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes")
TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in TABLE_NAMES}
IN_DISTRIBUTION_DATASETS = [
    name for name, dataset in GRID.datasets.items() if dataset.role == "in_distribution"
]
if IN_DISTRIBUTION_DATASETS:
    TABLES["in_distribution"] = f"{METRICS}/tables/in_distribution.csv"
    REGISTRY.analysis("in_distribution", tables={"in_distribution": TABLES["in_distribution"]})
REGISTRY.analysis(
    "classes",
    tables={"worst_classes": TABLES["worst_classes"]},
    files={"Accuracy by class": [TABLES["classes"]]},
)
TABLES["mri_json"] = f"{METRICS}/tables/mri.json"
# What decides whether a run is unfinished (rib.analysis.fit).
FIT = {
    "can_fit": [name for name, method in GRID.methods.items() if method.can_fit],
    "threshold": GRID.family.fit_threshold,
    "whole_targets": GRID.split_fractions is None,
}
# Correct predictions per run, dataset and object, for comparisons. Stored with the tables, to be
# pulled with them.
COUNTS = f"{METRICS}/tables/counts.npz"
# Labels and objects of the images that rows are of, which are the same at all geometries.
MANIFESTS, INDEXES, CLASSES = (
    [prepared(file, name, GEOMETRY_OF[FIRST_MODEL]) for name in GRID.datasets]
    for file in ("manifest.json", "index.parquet", "classes.json")
)
INDEXED = {"prepared": MANIFESTS, "indexes": ancient(INDEXES)}
# Settings of the job that reads which classes the targets' training images are of.
TRAINED_ON = {
    "view": to_params(VIEW_AT[GEOMETRY_OF[FIRST_MODEL]]),
    "excludes_proxy": [name for name in GRID.datasets if GRID.excludes_proxy(name)],
    "split": list(GRID.datasets) if GRID.split_fractions else [],
}


def tabulation(function, **settings):
    """Settings of a job that writes the tables of a function of rib.analysis, `module:function`."""
    source = WORKFLOW / "lib/rib/analysis" / f"{function.split(':')[0]}.py"
    return {"function": f"rib.analysis.{function}", **settings, "code": digest("tabulate", source)}


def table_files(job, **tables):
    """Outputs of a job that writes tables, by name, with its record."""
    return report_files(**tables, provenance=f"{METRICS}/tables/{job}.provenance.json")


# The other rules that write tables inherit from this one; with the input `fit`, unfinished runs are
# marked. Their files are in other folders, hence the absolute paths.
rule compute_metrics:
    input:
        **INDEXED,
        manifests=beside("manifest", ROWS),
        rows=ancient(ROWS),
        classes=ancient(CLASSES),
        proxy=proxy_of(GEOMETRY_OF[FIRST_MODEL], GRID.datasets),
        splits=splits_of(GEOMETRY_OF[FIRST_MODEL], GRID.datasets),
    output:
        **report_files(
            **TABLES,
            counts=COUNTS,
            provenance=f"{METRICS}/tables/provenance.json",
        ),
    log:
        f"{LOGS}/metrics.log",
    conda:
        str(WORKFLOW.parent / "envs/report.yaml")
    resources:
        mem_mb=memory_of(GRID.datasets, 2000),
        runtime=720 if LARGE_DATASETS else 30,
    params:
        cfg=tabulation(
            "tables:grid_tables",
            fit=FIT,
            in_distribution=IN_DISTRIBUTION_DATASETS,
            **MEANS_OF_RI,
            **TRAINED_ON,
            **ONLY_IN_PREVIEW,
        ),
    script:
        str(WORKFLOW / "scripts/tabulate.py")
