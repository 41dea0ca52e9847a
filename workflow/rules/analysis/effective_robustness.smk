# Effective robustness. Requires an in-distribution dataset and published accuracies of baseline
# models.

# Uses TABLES of metrics.smk, and LABELLED_MEANS, MODEL_STYLES and DATASET_LABELS of figures.smk.

from rib.analyses.effective_robustness.baselines import baselines
from rib.analyses.effective_robustness.settings import EffectiveRobustnessSettings

BASELINES = baselines(GRID)
ROBUSTNESS_TABLES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("effective_robustness", "baseline_lines")
}

if BASELINES:

    REGISTRY.figure(
        "effective_robustness",
        analysis="effective_robustness",
        question="survived",
        inputs={"robustness": ROBUSTNESS_TABLES["effective_robustness"]},
        settings={
            **LABELLED_MEANS,
            "models": MODEL_STYLES,
            "baselines": [to_params(pair) for pair in BASELINES],
            "datasets": DATASET_LABELS,
        },
    )
    REGISTRY.analysis(
        "effective_robustness", tables=ROBUSTNESS_TABLES, figures=["effective_robustness"]
    )


def effective_robustness_settings(wildcards):
    """Settings of the job that computes effective robustness."""
    settings = EffectiveRobustnessSettings(
        baselines=BASELINES,
        confidence=CONFIDENCE,
        conditions=CONDITIONS,
        code=digest("compare_with_baselines"),
    )
    return to_params(settings)


rule compare_with_baselines:
    input:
        accuracy=TABLES["accuracy"],
        fit=TABLES["fit"],
    output:
        **table_files("effective_robustness", **ROBUSTNESS_TABLES),
    log:
        f"{LOGS}/effective_robustness.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=effective_robustness_settings,
    script:
        "../../scripts/compare_with_baselines.py"
