# What one mRI of each method costs, from the records of jobs. Those are no inputs, so that it can be told where only rows
# and reports were pulled; the table of mRI says when the jobs are done. Times differ from run to run, so these files do too.

COST = f"{REPORTS}/tables/cost.csv"


rule count_costs:
    input:
        mri=TABLES["mri"],
    output:
        table=COST,
        provenance=f"{REPORTS}/tables/cost.provenance.json",
    log:
        f"{LOGS}/cost.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        # CELLS is report.smk's, which is read later.
        cfg=lambda w: {
            "records": [path for stage in ("finetune", "merge", "evaluate") for path in CELLS[stage]],
            "parents": {name: list(method.parents) for name, method in SHOWN.items()},
            "conditions": "; ".join(GRID.conditions()),
            "code": digest("cost"),
        },
    script:
        "../../scripts/cost.py"


analysis(
    "cost",
    tables={"cost": COST},
    figures={
        "cost": (
            {"cost": COST, "mri": TABLES["mri"]},
            {"models": LABELS, "methods": METHOD_LABELS, "confidence": CONFIDENCE},
        ),
    },
    optional=False,
)
