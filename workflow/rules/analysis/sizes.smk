# Robustness by the number of images used for fine-tuning and, for models trained here, for pretraining. Part of a run
# if the grid has several sizes or such models.

SIZED = [name for name, model in GRID.models.items() if model.pretrain]
# Series of each model: models that differ only in the size of their pretraining data.
SERIES = {
    name: f"{GRID.models[name].architecture} on {CATALOG.datasets[GRID.models[name].pretrain['dataset']].label}"
    for name in SIZED
}
# One fine-tuned run of each model, target and size, which records the number of images.
COUNTED = list({(run.model, run.target, run.size): run for run in TRAINED_RUNS}.values())
SIZES = {"sizes": f"{REPORTS}/tables/sizes.csv"}
PRETRAINING_SIZES = {"pretraining_sizes": f"{REPORTS}/tables/pretraining_sizes.csv"} if SIZED else {}
SIZES_FIGURES = []

if COUNTED and len(GRID.sizes) > 1:
    SIZES_FIGURES.append("train_subsets")
    REGISTRY.figure("train_subsets", inputs=SIZES, settings=STYLED_MEANS)

if COUNTED and SIZED:
    SIZES_FIGURES.append("pretraining_sizes")
    REGISTRY.figure(
        "pretraining_sizes",
        inputs=PRETRAINING_SIZES,
        settings={"series": SERIES, "methods": METHOD_STYLES, "confidence": CONFIDENCE},
    )

if SIZES_FIGURES:
    REGISTRY.analysis("sizes", tables=SIZES | PRETRAINING_SIZES, figures=SIZES_FIGURES)


use rule compare_published as tabulate_sizes with:
    input:
        ri=TABLES["ri"],
        mri=TABLES["mri"],
        fit=TABLES["fit"],
        manifests=[f"{CHECKPOINT}/manifest.json".format(**vars(run)) for run in COUNTED],
        descriptions=expand(f"{MODEL}/model.json", model=SIZED),
    output:
        **table_files("sizes", table=SIZES["sizes"]),
    log:
        f"{LOGS}/sizes.log",
    params:
        cfg=tabulation(
            "sizes:write_sizes",
            runs=[{key: vars(run)[key] for key in ("model", "target", "size")} for run in COUNTED],
            trained_here=SIZED,
            conditions=CONDITIONS,
        ),


use rule tabulate_sizes as tabulate_pretraining_sizes with:
    input:
        mri=TABLES["mri"],
        ood=TABLES["ood"],
        fit=TABLES["fit"],
        descriptions=expand(f"{MODEL}/model.json", model=SIZED),
    output:
        **table_files("pretraining_sizes", table=f"{REPORTS}/tables/pretraining_sizes.csv"),
    log:
        f"{LOGS}/pretraining_sizes.log",
    params:
        cfg=tabulation("sizes:write_pretraining_sizes", trained_here=SIZED, conditions=CONDITIONS),
