# ImageNet-RIB: how much out-of-distribution robustness survives fine-tuning. Stages communicate only through files:
#   download -> prepare -> models -> finetune -> merge -> evaluate -> metrics -> figures -> report
#   data/raw/<dataset or model>/                                                     archives as published
#   results/<family>/prepare/<dataset>/<geometry>/, <models or text>/<model>/        arrays and index; pretrained weights
#   results/<family>/<protocol>/<stage>/<model>/<target>/<method>/<size>/<seed>/     checkpoints, recipes, rows, exports
#   reports/<family>/                                                                tables, figures, the page


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/external.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/published.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/features.smk"


for ANALYSIS_FILE in sorted((WORKFLOW / "rules/analysis").glob("*.smk")):

    include: ANALYSIS_FILE


include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/status.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/bundles.smk"
include: "workflow/rules/preview.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/pull.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/accept.smk"


# Rows of what is trained come before the next training, so that there is something to look at.
for RULE in workflow.rules:
    RULE.priority = RULE.priority or int(RULE.name not in ("finetune", "keep_snapshots"))


rule all:
    default_target: True
    input:
        ALL_TABLES,
        ALL_FIGURES,
        PAGE,


CONSOLE.follow(f"Made: checkpoints and rows in {RUNS}/; tables, figures and {PAGE} in {REPORTS}/.")
