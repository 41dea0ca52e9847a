# Accuracy out of distribution beyond what accuracy in distribution leads one to expect, before and after fine-tuning.
# Only where the family has a dataset in distribution, and publishers state accuracies to fit a line on.

BASELINES = GRID.baselines()
ROBUSTNESS_TABLES = {name: f"{REPORTS}/tables/{name}.csv" for name in ("effective_robustness", "baseline_lines")}

if BASELINES:

    analysis(
        "effective_robustness",
        tables=ROBUSTNESS_TABLES,
        figures={
            "effective_robustness": (
                {"robustness": ROBUSTNESS_TABLES["effective_robustness"]},
                {
                    "baselines": BASELINES,
                    "models": {name: {"label": entry.label, **entry.style} for name, entry in GRID.models.items()},
                    "methods": METHOD_LABELS,
                    "datasets": DATASET_LABELS,
                    "confidence": CONFIDENCE,
                },
            ),
        },
        optional=False,
    )


rule set_against_baselines:
    input:
        accuracy=TABLES["accuracy"],
    output:
        **ROBUSTNESS_TABLES,
        provenance=f"{REPORTS}/tables/effective_robustness.provenance.json",
    log:
        f"{LOGS}/effective_robustness.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg={
            "baselines": BASELINES,
            "confidence": CONFIDENCE,
            "conditions": "; ".join(GRID.conditions()),
            "code": digest("effective_robustness"),
        },
    script:
        "../../scripts/effective_robustness.py"
