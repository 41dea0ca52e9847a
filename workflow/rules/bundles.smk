# `snakemake bundle` writes one file with a run's tables and all that they follow from; `snakemake
# compare` checks and compares such files of several groups. Neither is part of a full run.

from rib.reporting.settings import BundleSettings, ComparisonSettings, RankingStatistics

BUNDLE = f"{REPORTS}/{FAMILY}.rib.zip"


def files_of_bundle(wildcards):
    """Files of a bundle besides the rows: facts of runs and datasets, tables, and the page.

    Also sets what the terminal shows when the bundle is made.
    """
    CONSOLE.last_line = (
        f"Made: {BUNDLE}, to be sent to others, who compare it by `snakemake compare`."
    )
    geometry = GEOMETRY_OF[FIRST_MODEL]
    datasets = list(GRID.datasets)
    # The datasets of this run may exclude images of the pretraining proxy, which is the reference.
    has_proxy = any(GRID.excludes_proxy(name) for name in GRID.datasets)
    if has_proxy and GRID.reference.dataset.name not in datasets:
        datasets.append(GRID.reference.dataset.name)
    facts_of_datasets = []
    for name in datasets:
        for file in ("manifest.json", "index.parquet", "classes.json"):
            facts_of_datasets.append(prepared(file, name, geometry))
    tables = [path for path in (*TABLES.values(), *COMPARISON.values()) if path.endswith(".csv")]
    return [
        *beside("manifest", ROWS),
        *facts_of_datasets,
        *splits_of(geometry, GRID.datasets),
        *tables,
        PAGE,
    ]


def bundle_settings(wildcards):
    """Settings of the job that writes a bundle."""
    settings = BundleSettings(
        records=[*GRID_RECORDS, f"{METRICS}/tables/comparison.provenance.json"],
        config=ABOUT.config,
        code=digest(
            "bundle",
            REPORTING / "bundle.py",
            REPORTING / "foreign_parquet.py",
            REPORTING / "settings.py",
        ),
    )
    return to_params(settings)


rule bundle:
    input:
        rows=ROWS,
        more=files_of_bundle,
    output:
        bundle=BUNDLE,
        provenance=f"{REPORTS}/bundle.provenance.json",
    log:
        f"{LOGS}/bundle.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=memory_of(GRID.datasets, 2000),
        runtime=720 if LARGE_DATASETS else 30,
    params:
        cfg=bundle_settings,
    script:
        "../scripts/bundle.py"


COMPARISON_SETTINGS = ComparisonSettings(
    bundles=CONFIG["bundles"],
    statistics=RankingStatistics(
        replicates=CONFIG["statistics"]["replicates"],
        confidence=CONFIG["statistics"]["confidence"],
        seed=CONFIG["statistics"]["seed"],
    ),
    folder=Path("reports/compare"),
    log_file="logs/compare.log",
)


rule compare:
    log:
        "logs/compare.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=to_params(COMPARISON_SETTINGS),
    script:
        "../scripts/compare.py"
