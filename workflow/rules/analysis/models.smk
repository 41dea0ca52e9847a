# Compare pretrained models that were fine-tuned with the same method. Part of a run with several
# models.

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


use rule old_tables as compare_models with:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("models", **MODEL_TABLES),
    log:
        f"{LOGS}/models.log",
    params:
        cfg=tabulation("analyses.models.tables:model_tables", methods=SHARED, **MEANS_OF_RI),
