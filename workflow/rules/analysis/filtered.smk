# mRI with and without adversarially filtered datasets. Part of a run that evaluates one and another
# dataset that counts in RI.

# Uses COUNTS, METRICS and RI_STATISTICS of metrics.smk.

from rib.analyses.filtered.settings import FilteredSettings

MRI_WITHOUT_FILTERED = f"{METRICS}/tables/mri_without_filtered.csv"
FILTERED_DATASETS = [
    name for name in RI_STATISTICS.ood_datasets if GRID.datasets[name].adversarially_filtered
]

if FILTERED_DATASETS and len(RI_STATISTICS.ood_datasets) > len(FILTERED_DATASETS) + 1:
    REGISTRY.analysis("filtered", tables={"mri_without_filtered": MRI_WITHOUT_FILTERED})


def filtered_settings(wildcards):
    """Settings of the job that leaves filtered datasets out of mRI."""
    settings = FilteredSettings(
        ri=RI_STATISTICS,
        filtered=FILTERED_DATASETS,
        conditions=CONDITIONS,
        code=digest("leave_filtered_out"),
    )
    return to_params(settings)


rule leave_filtered_out:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("filtered", mri_without_filtered=MRI_WITHOUT_FILTERED),
    log:
        f"{LOGS}/filtered.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=filtered_settings,
    script:
        "../../scripts/leave_filtered_out.py"
