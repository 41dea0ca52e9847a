# Effective robustness. Requires an in-distribution dataset and published accuracies of baseline
# models.

from rib.analyses.effective_robustness.baselines import baselines

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
            "baselines": BASELINES,
            "datasets": DATASET_LABELS,
        },
    )
    REGISTRY.analysis(
        "effective_robustness", tables=ROBUSTNESS_TABLES, figures=["effective_robustness"]
    )


use rule old_published as compare_with_baselines with:
    input:
        accuracy=TABLES["accuracy"],
        fit=TABLES["fit"],
    output:
        **table_files("effective_robustness", **ROBUSTNESS_TABLES),
    log:
        f"{LOGS}/effective_robustness.log",
    params:
        cfg=tabulation(
            "analyses.effective_robustness.tables:robustness_tables",
            baselines=BASELINES,
            **STATISTICS,
        ),
