# How far the grid has come, without starting anything; works beside a run.


rule status:
    log:
        "logs/status.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        cfg=lambda w: {"cells": CELLS, "jobs_at_once": workflow.nodes or workflow.cores},
    script:
        "../scripts/status.py"
