# Protocol held_out: how many images of each dataset train, select and test.

SPLIT_COUNTS = f"{REPORTS}/tables/splits.csv"

if GRID.shares:

    analysis("splits", tables={"splits": SPLIT_COUNTS}, figures={}, optional=False)

    rule count_splits:
        input:
            splits=splits(geometry(FIRST), GRID.datasets),
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
                "conditions": "; ".join(GRID.conditions()),
                "code": digest("count_splits"),
            },
        script:
            "../../scripts/count_splits.py"
