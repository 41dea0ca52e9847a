# ImageNet-RIB: how much out-of-distribution robustness survives fine-tuning. Stages communicate
# only through files:
#
#   download -> prepare -> models -> finetune -> evaluate -> metrics -> analyses -> page
#
#   data/raw/<dataset or model>/                     archives as published
#   results/<family>/prepare/<dataset>/<geometry>/   arrays and index
#   results/<family>/<models or text>/<model>/       pretrained weights
#   results/<family>/<protocol>/<stage>/<model>/<target>/<method>/<size>/<seed>/
#                                                    checkpoints, rows, exports
#   reports/<name>/                                  tables, figures and page of the present config

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir, "workflow/lib")))

from rib.base.errors import UserError  # noqa: E402
from rib.jobs.messages import errors_as_sentences  # noqa: E402

START = time.time()


# An error in the configuration ends with one sentence, without the places in our code.
with errors_as_sentences():

    include: "workflow/rules/common.smk"
    include: "workflow/rules/data.smk"
    include: "workflow/rules/models.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/features.smk"
    include: "workflow/rules/metrics.smk"
    include: "workflow/rules/analyses.smk"
    include: "workflow/rules/report.smk"
    include: "workflow/rules/export.smk"


rule all:
    default_target: True
    input:
        PAGE,
        PAGE_TABLES,
        PATHS.counts,
        FILES_OF_FIGURES,


# Of a call that runs jobs here: not of a dry-run, of a cluster's executor or of `--touch`.
onstart:
    if UNCOUNTED_GPUS is not None and workflow.local_exec and not workflow.touch:
        with errors_as_sentences():
            raise UserError(UNCOUNTED_GPUS)


onsuccess:
    for page in sorted(Path("reports").rglob("index.html")):
        if page.stat().st_mtime >= START:
            print(f"Page: {page}")
