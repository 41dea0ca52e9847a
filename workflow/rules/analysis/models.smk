# Compare pretrained models that were fine-tuned with the same method. Part of a run with several
# models.

# Uses COUNTS, TABLES and RI_STATISTICS of metrics.smk, and what figures.smk says of models.

from rib.analyses.models.settings import ModelComparisonSettings

MODEL_TABLES = {
    name: f"{METRICS}/tables/{name}.csv" for name in ("model_comparisons", "model_ranks")
}

if len(GRID.models) > 1 and HAS_FIGURES:
    COMPARED_MODELS = {**ONE_METHOD, "models": MODEL_STYLES, "confidence": CONFIDENCE}
    REGISTRY.figure(
        "models",
        analysis="models",
        question="model",
        inputs={"ranks": MODEL_TABLES["model_ranks"]},
        settings=COMPARED_MODELS,
    )
    REGISTRY.analysis("models", tables=MODEL_TABLES, figures=["models"])


def model_comparison_settings(wildcards):
    """Settings of the job that compares models."""
    settings = ModelComparisonSettings(
        ri=RI_STATISTICS,
        methods=SHARED,
        conditions=CONDITIONS,
        code=digest("compare_models"),
    )
    return to_params(settings)


rule compare_models:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("models", **MODEL_TABLES),
    log:
        f"{LOGS}/models.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=model_comparison_settings,
    script:
        "../../scripts/compare_models.py"
