# Before any fine-tuning: do pretrained models get the accuracies here that their publishers state?

STATED = [
    row
    for row in CATALOG.table("published.csv", ("model", "dataset", "accuracy", "source"), ["accuracy"])
    if row["model"] in GRID.models and row["dataset"] in GRID.datasets
]
STATED_SUITES = {(row["model"], GRID.datasets[row["dataset"]].suite) for row in STATED}
PUBLISHED = f"{REPORTS}/tables/published.csv"


rule compare_published:
    input:
        rows=[
            f"{RUNS}/evaluate/{model}/none/{PRETRAINED}/all/0/{suite}.parquet"
            for model, suite in sorted(STATED_SUITES)
        ],
    output:
        table=PUBLISHED,
        provenance=f"{REPORTS}/tables/published.provenance.json",
    log:
        f"{LOGS}/published.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=lambda w: {
            "published": STATED,
            "expected": {name: entry.images for name, entry in GRID.datasets.items() if entry.images},
            "obstacle": GRID.unlike_published(),
            "code": digest("published"),
        },
    script:
        "../scripts/published.py"


rule published:
    input:
        published_table,


rule plan:
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=lambda w: {"config": CONFIG, "catalog": FOLDERS, "results": f"results/{FAMILY}"},
    script:
        "../scripts/plan.py"
