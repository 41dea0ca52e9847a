# Robustness by the numbers of fine-tuning and of pretraining images, if the grid has several or
# pretrains models.
# Uses CHECKPOINT and CHECKPOINT_RUNS of finetune.smk, SMALL_TABLES, TABLES and table_files of
# metrics.smk, and styles of figures.smk.

from rib.analyses.sizes.settings import SizeSettings

SIZES = {name: f"{METRICS}/tables/{name}.csv" for name in ("sizes", "pretraining_sizes")}
# Models that differ only in the size of their pretraining data have the same architecture, dataset
# and augmentation.
SERIES = {
    name: f"{model.architecture} on {model.pretrain['dataset']}"
    + (", augmented" if "augmentation" in model.pretrain else "")
    for name, model in GRID.models.items()
    if model.pretrain
}
PRETRAINING_IMAGES = {
    name: model.stated_pretraining_images
    for name, model in GRID.models.items()
    if model.stated_pretraining_images
}
# One fine-tuned run of each model, target and size, which records the number of images.
COUNTED = list(
    {
        (run.model, run.target, run.size): run for run in CHECKPOINT_RUNS if run in REPORTED_RUNS
    }.values()
)

if COUNTED and len(GRID.sizes) > 1:
    REGISTRY.figure(
        "train_subsets",
        analysis="sizes",
        question="survived",
        inputs={"sizes": SIZES["sizes"]},
        settings=STYLED_MEANS,
    )
    REGISTRY.analysis("sizes", tables={"sizes": SIZES["sizes"]}, figures=["train_subsets"])

if COUNTED and EXAMPLE_METHOD and (SERIES or len(set(PRETRAINING_IMAGES.values())) > 1):
    OF_SIZES = {"pretraining_sizes": SIZES["pretraining_sizes"]}
    # Published models may be many; with them, one method is shown.
    ONLY = (
        METHOD_STYLES
        if len(SERIES) == len(GRID.models)
        else {EXAMPLE_METHOD: METHOD_STYLES[EXAMPLE_METHOD]}
    )
    REGISTRY.figure(
        "pretraining_sizes",
        analysis="sizes",
        question="model",
        inputs=OF_SIZES,
        settings={**STYLED_MEANS, "methods": ONLY, "series": SERIES},
    )
    REGISTRY.analysis(
        "pretraining_sizes", folder="sizes", tables=OF_SIZES, figures=["pretraining_sizes"]
    )


def size_settings(wildcards):
    """Settings of the job that tabulates results by numbers of images."""
    settings = SizeSettings(
        pretraining_images=PRETRAINING_IMAGES,
        conditions=CONDITIONS,
        code=digest("tabulate_sizes"),
    )
    return to_params(settings)


rule tabulate_sizes:
    input:
        **{name: TABLES[name] for name in ("ri", "mri", "ood", "fit")},
        manifests=[f"{CHECKPOINT}/manifest.json".format(**vars(run)) for run in COUNTED],
        descriptions=[
            f"{MODEL}/model.json".format(model=name)
            for name, model in GRID.models.items()
            if model.is_trained_here
        ],
    output:
        **table_files("sizes", **SIZES),
    log:
        f"{LOGS}/sizes.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **SMALL_TABLES,
    params:
        cfg=size_settings,
    script:
        "../../scripts/tabulate_sizes.py"
