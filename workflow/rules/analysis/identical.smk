# Identical images within a dataset, and of several datasets.

IDENTICAL = f"{METRICS}/tables/identical.csv"
# The datasets that are evaluated or trained on, the pretraining proxy included.
COMPARED_DATASETS = {entry.name: entry.label for entry in DATASETS_READ}

REGISTRY.analysis("identical", tables={"identical": IDENTICAL})


use rule compare_published as count_identical with:
    input:
        prepared=[prepared("manifest.json", name, GEOMETRY_OF[FIRST_MODEL]) for name in COMPARED_DATASETS],
        indexes=ancient([prepared("index.parquet", name, GEOMETRY_OF[FIRST_MODEL]) for name in COMPARED_DATASETS]),
        classes=ancient([prepared("classes.json", name, GEOMETRY_OF[FIRST_MODEL]) for name in COMPARED_DATASETS]),
    output:
        **table_files("identical", table=IDENTICAL),
    log:
        f"{LOGS}/identical.log",
    resources:
        mem_mb=memory_of(COMPARED_DATASETS, 2000),
        runtime=30,
    params:
        cfg=tabulation("identical:identical_table", datasets=COMPARED_DATASETS, conditions=CONDITIONS),
