# Estimate the cost of the grid before it is run.


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
