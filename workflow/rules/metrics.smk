# Compute accuracies, RI and mRI with confidence intervals from the rows of the whole grid.

from rib.statistics.settings import FitRule, GridTableSettings, RIStatistics

ROWS = rows_of(SHOWN_GRID.runs())
SOURCE_GROUPS = GRID.source_groups()
RI_STATISTICS = RIStatistics(
    ood_datasets=GRID.ood,
    source_groups=GRID.leak_free_groups(),
    **CONFIG["statistics"],
)
TABLE_NAMES = ("accuracy", "fit", "ri", "mri", "ood", "curves", "classes", "worst_classes")
TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in TABLE_NAMES}
IN_DISTRIBUTION_DATASETS = [
    name for name, dataset in GRID.datasets.items() if dataset.role == "in_distribution"
]
REGISTRY.analysis("robustness", tables={name: TABLES[name] for name in ("mri", "ri", "accuracy")})
if IN_DISTRIBUTION_DATASETS:
    TABLES["in_distribution"] = f"{METRICS}/tables/in_distribution.csv"
    REGISTRY.analysis(
        "in_distribution",
        folder="robustness",
        tables={"in_distribution": TABLES["in_distribution"]},
    )
LEAKING_GROUPS = GRID.leaking_groups()
if LEAKING_GROUPS:
    TABLES["leak_free"] = f"{METRICS}/tables/leak_free.csv"
    REGISTRY.analysis(
        "leak_free",
        folder="robustness",
        tables={"leak_free": TABLES["leak_free"]},
    )
REGISTRY.analysis(
    "classes",
    folder="robustness",
    tables={"worst_classes": TABLES["worst_classes"]},
    files={"Accuracy by class": [TABLES["classes"]]},
)
TABLES["mri_json"] = f"{METRICS}/tables/mri.json"
# What decides how runs are marked (rib.statistics.fit).
FIT_RULE = FitRule(
    can_fit=[name for name, method in GRID.methods.items() if method.can_fit],
    threshold=GRID.family.fit_threshold,
    whole_targets=GRID.split_fractions is None,
    # Of the whole grid: of a preview's methods, not all have their parents in it.
    other_rates=WHOLE_GRID.other_rates(),
)
# Correct predictions per run, dataset and object, for comparisons. Stored with the tables, to be
# pulled with them.
COUNTS = f"{METRICS}/tables/counts.npz"
# Labels and objects of the images that rows are of, which are the same at all geometries.
MANIFESTS, INDEXES, CLASSES = (
    [prepared(file, name, GEOMETRY_OF[FIRST_MODEL]) for name in GRID.datasets]
    for file in ("manifest.json", "index.parquet", "classes.json")
)
INDEXED = {"prepared": MANIFESTS, "indexes": ancient(INDEXES)}
# Resources of jobs that read tables and records, and of jobs that read the rows of all runs.
SMALL_TABLES = {"mem_mb": 2000, "runtime": 30}
TABLES_OF_ROWS = {
    "mem_mb": memory_of(GRID.datasets, 2000),
    "runtime": 720 if LARGE_DATASETS else 30,
}


def table_files(job, **tables):
    """Outputs of a job that writes tables, by name, with its record."""
    return report_files(**tables, provenance=f"{METRICS}/tables/{job}.provenance.json")


# mRI without these needs another dataset that counts.
FILTERED_DATASETS = [
    name for name in RI_STATISTICS.ood_datasets if GRID.datasets[name].adversarially_filtered
]
if len(RI_STATISTICS.ood_datasets) <= len(FILTERED_DATASETS) + 1:
    FILTERED_DATASETS = []


def metrics_settings(wildcards):
    """Settings of the job that computes the tables of the grid."""
    settings = GridTableSettings(
        methods=methods_of(SHOWN_GRID.runs()),
        ri=RI_STATISTICS,
        fit=FIT_RULE,
        in_distribution=IN_DISTRIBUTION_DATASETS,
        view=view_at(GEOMETRY_OF[FIRST_MODEL], *GRID.datasets),
        excludes_proxy=[name for name in GRID.datasets if GRID.excludes_proxy(name)],
        split=list(GRID.datasets) if GRID.split_fractions else [],
        compared=PREVIEW.compared if PREVIEW else None,
        sharing_targets=GRID.sharing_targets() if LEAKING_GROUPS else [],
        leaking_groups=LEAKING_GROUPS,
        filtered=FILTERED_DATASETS,
        conditions=CONDITIONS,
        code=digest("compute_metrics"),
    )
    return to_params(settings)


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
        "../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=metrics_settings,
    script:
        "../scripts/compute_metrics.py"
