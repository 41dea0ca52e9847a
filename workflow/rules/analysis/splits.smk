# Protocol held_out: number of images in the splits of each dataset.

SPLIT_COUNTS = f"{REPORTS}/tables/splits.csv"

if GRID.split_fractions:

    REGISTRY.analysis("splits", tables={"splits": SPLIT_COUNTS})

    rule count_splits:
        input:
            splits=splits_of(geometry_of(FIRST_MODEL), GRID.datasets),
        output:
            table=SPLIT_COUNTS,
            provenance=f"{REPORTS}/tables/splits.provenance.json",
        log:
            f"{LOGS}/splits.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            cfg={
                "datasets": list(GRID.datasets),
                "conditions": CONDITIONS,
                "code": digest("count_splits"),
            },
        script:
            "../../scripts/count_splits.py"
