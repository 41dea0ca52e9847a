# Robustness by the number of images used for fine-tuning and for pretraining. Part of a run if the grid has several sizes,
# or models of several or that are trained here.

SIZED = [name for name, model in GRID.models.items() if model.pretrain]
STATED = {name: model.pretraining_images for name, model in GRID.models.items() if model.pretraining_images}
# Series of each model: models that differ only in the size of their pretraining data.
SERIES = {
    name: f"{GRID.models[name].architecture} on {CATALOG.datasets[GRID.models[name].pretrain['dataset']].label}"
    for name in SIZED
}
# One fine-tuned run of each model, target and size, which records the number of images.
COUNTED = list({(run.model, run.target, run.size): run for run in TRAINED_RUNS}.values())
SIZES = {"sizes": f"{REPORTS}/tables/sizes.csv"}
PRETRAINING_SIZES = {"pretraining_sizes": f"{REPORTS}/tables/pretraining_sizes.csv"}

if COUNTED and len(GRID.sizes) > 1:
    REGISTRY.figure("train_subsets", inputs=SIZES, settings=STYLED_MEANS)
    REGISTRY.analysis("sizes", tables=SIZES, figures=["train_subsets"])

if COUNTED and EXAMPLE_METHOD and (SIZED or len(set(STATED.values())) > 1):
    # With published models, which may be many, one method.
    ONLY = METHOD_STYLES if len(SIZED) == len(GRID.models) else {EXAMPLE_METHOD: METHOD_STYLES[EXAMPLE_METHOD]}
    SIZED_STYLES = {**STYLED_MEANS, "methods": ONLY, "series": SERIES}
    REGISTRY.figure("pretraining_sizes", inputs=PRETRAINING_SIZES, settings=SIZED_STYLES)
    REGISTRY.analysis("pretraining_sizes", tables=PRETRAINING_SIZES, figures=["pretraining_sizes"])


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
        **table_files("pretraining_sizes", table=PRETRAINING_SIZES["pretraining_sizes"]),
    log:
        f"{LOGS}/pretraining_sizes.log",
    params:
        cfg=tabulation("sizes:write_pretraining_sizes", stated=STATED, trained_here=SIZED, conditions=CONDITIONS),
