# ImageNet-RIB: how much out-of-distribution robustness survives fine-tuning. Stages communicate only
# through files:
#
#   download -> prepare -> models -> finetune -> merge -> evaluate -> metrics -> figures -> report
#
#   data/raw/<dataset or model>/                   archives as published
#   results/<family>/prepare/<dataset>/<geometry>/ arrays and index
#   results/<family>/<models or text>/<model>/     pretrained weights
#   results/<family>/<protocol>/<stage>/<model>/<target>/<method>/<size>/<seed>/
#                                                  checkpoints, recipes, rows, exports
#   results/<family>/<protocol>/metrics/<digest of the grid>/
#                                                  tables, figures and page of a grid
#   reports/<family>/, reports/<family>/held_out/  copies of those of one grid

import time

START = time.time()


include: "workflow/rules/common.smk"


ANALYSES = sorted((WORKFLOW / "rules/analysis").glob("*.smk"))
# The files of rules, in the order in which they use each other's functions and settings.
STAGES = [
    "download",
    "prepare",
    "split",
    "models",
    "pretrain",
    "text",
    "finetune",
    "external",
    "merge",
    "evaluate",
    "labels",
    "reported_runs",
    "metrics",
    "published",
    "figures",
    "features",
    *(f"analysis/{file.stem}" for file in ANALYSES),
    "left_out",
    "plot",
    "report",
    "preview",
]
if not PREVIEW:
    STAGES += [
        "export",
        "paper",
        "commands",
    ]
for STAGE in STAGES:

    include: WORKFLOW / f"rules/{STAGE}.smk"


rule all:
    default_target: True
    input:
        PUBLICATION.values(),


onsuccess:
    for page in sorted(Path("reports").rglob("index.html")):
        if page.stat().st_mtime >= START:
            print(f"Page: {page}")
