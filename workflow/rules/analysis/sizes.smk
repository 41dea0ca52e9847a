# How much robustness survives by the number of images fine-tuned on, and, of models that are trained here, pretrained on.
# There where the grid has several sizes of the one or such models.

SIZED = [name for name, model in GRID.models.items() if model.pretrain]
# Models that differ in nothing but the part of a dataset that they were pretrained on, by model.
SERIES = {
    name: f"{GRID.models[name].architecture} on {CATALOG.datasets[GRID.models[name].pretrain['dataset']].label}"
    for name in SIZED
}
SIZES_SHOWN = {
    "methods": {name: {"label": method.label, **method.style} for name, method in SHOWN.items()},
    "confidence": CONFIDENCE,
}
SIZES_FIGURES = {}
SIZES_TABLES = {"sizes": f"{REPORTS}/tables/sizes.csv"}
if len(GRID.sizes) > 1:
    SIZES_FIGURES["downstream_sizes"] = ({"sizes": SIZES_TABLES["sizes"]}, {"models": LABELS, **SIZES_SHOWN})
if SIZED:
    SIZES_TABLES["pretraining_sizes"] = f"{REPORTS}/tables/pretraining_sizes.csv"
    SIZES_FIGURES["pretraining_sizes"] = (
        {"pretraining_sizes": SIZES_TABLES["pretraining_sizes"]},
        {"series": SERIES, **SIZES_SHOWN},
    )
# Of each model, target and size one fine-tuning, which tells how many images it saw.
TRAINED = [run for run in GRID.runs() if run.method != PRETRAINED and GRID.methods[run.method].trains]
COUNTED = list({(run.model, run.target, run.size): run for run in TRAINED}.values())


if SIZES_FIGURES and COUNTED:

    analysis("sizes", tables=SIZES_TABLES, figures=SIZES_FIGURES, optional=False)

    rule tabulate_sizes:
        input:
            ri=TABLES["ri"],
            mri=TABLES["mri"],
            manifests=[f"{RUNS}/finetune/{RUN}/manifest.json".format(**vars(run)) for run in COUNTED],
            descriptions=expand(f"{MODEL}/model.json", model=SIZED),
        output:
            table=SIZES_TABLES["sizes"],
            provenance=f"{REPORTS}/tables/sizes.provenance.json",
        log:
            f"{LOGS}/sizes.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            cfg={
                "runs": [{key: vars(run)[key] for key in ("model", "target", "size")} for run in COUNTED],
                "trained_here": SIZED,
                "epochs": GRID.training()["epochs"],
                "conditions": "; ".join(GRID.conditions()),
                "code": digest("sizes"),
            },
        script:
            "../../scripts/sizes.py"


if SIZES_FIGURES and COUNTED and SIZED:

    rule tabulate_pretraining_sizes:
        input:
            mri=TABLES["mri"],
            ood=TABLES["ood"],
            descriptions=expand(f"{MODEL}/model.json", model=SIZED),
        output:
            table=SIZES_TABLES["pretraining_sizes"],
            provenance=f"{REPORTS}/tables/pretraining_sizes.provenance.json",
        log:
            f"{LOGS}/pretraining_sizes.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            cfg={
                "trained_here": SIZED,
                "conditions": "; ".join(GRID.conditions()),
                "code": digest("pretraining_sizes"),
            },
        script:
            "../../scripts/pretraining_sizes.py"
