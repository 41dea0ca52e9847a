# Protocol held_out: number of images in the splits of each dataset.

SPLIT_COUNTS = f"{METRICS}/tables/splits.csv"

if GRID.split_fractions:

    REGISTRY.analysis("splits", tables={"splits": SPLIT_COUNTS})

    use rule compare_published as count_splits with:
        input:
            splits=splits_of(GEOMETRY_OF[FIRST_MODEL], GRID.datasets),
        output:
            **table_files("splits", table=SPLIT_COUNTS),
        log:
            f"{LOGS}/splits.log",
        params:
            cfg=tabulation(
                "analyses.splits.tables:split_table",
                datasets=list(GRID.datasets),
                conditions=CONDITIONS,
            ),
