# Compare pretrained models that were fine-tuned with the same method. Part of a run with several models.

MODEL_TABLES = {name: f"{REPORTS}/tables/{name}.csv" for name in ("model_comparisons", "model_ranks")}
PRETRAINING_IMAGES = {name: model.pretraining_images for name, model in GRID.models.items() if model.pretraining_images}
MODEL_FIGURES = []

if len(GRID.models) > 1 and EXAMPLE_METHOD:
    COMPARED_MODELS = {**ONE_METHOD, "models": MODEL_STYLES, "confidence": CONFIDENCE}
    RANKED = {"ranks": MODEL_TABLES["model_ranks"]}
    MODEL_FIGURES.append("models")
    REGISTRY.figure("models", inputs=RANKED, settings=COMPARED_MODELS)
    if len(set(PRETRAINING_IMAGES.values())) > 1:
        MODEL_FIGURES.append("pretraining_data")
        REGISTRY.figure("pretraining_data", inputs=RANKED, settings={**COMPARED_MODELS, "images": PRETRAINING_IMAGES})
    REGISTRY.analysis("models", tables=MODEL_TABLES, figures=MODEL_FIGURES)


use rule compute_metrics as compare_models with:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
    output:
        **table_files("models", **MODEL_TABLES),
    log:
        f"{LOGS}/models.log",
    params:
        cfg=tabulation("model_comparison:write_model_comparisons", methods=SHARED, **MEANS_OF_RI),
