# Protocol held_out: number of images in the splits of each dataset.
# Uses splits_of of split.smk, and SMALL_TABLES and table_files of metrics.smk.

from rib.analyses.splits.settings import SplitCountSettings

SPLIT_COUNTS = f"{METRICS}/tables/splits.csv"


def split_count_settings(wildcards):
    """Settings of the job that counts the images of splits."""
    settings = SplitCountSettings(
        datasets=list(GRID.datasets), conditions=CONDITIONS, code=digest("count_splits")
    )
    return to_params(settings)


if GRID.split_fractions:

    REGISTRY.analysis("splits", tables={"splits": SPLIT_COUNTS})

    rule count_splits:
        input:
            splits=splits_of(GEOMETRY_OF[FIRST_MODEL], GRID.datasets),
        output:
            **table_files("splits", splits=SPLIT_COUNTS),
        log:
            f"{LOGS}/splits.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            **SMALL_TABLES,
        params:
            cfg=split_count_settings,
        script:
            "../../scripts/count_splits.py"
