# In the course of training: CKA of the features before the head with the pretrained model's, and
# accuracy on the target with RI. Runs are trained once more and keep their weights at ten times, so
# that the settings of the ordinary runs don't change.

# Uses training_inputs of finetune.smk, evaluation_inputs of evaluate.smk, COMPARED and KERNELS of
# features.smk, and TABLES of metrics.smk.

from rib.analyses.epochs.settings import EpochCkaSettings, EpochTradeoffSettings
from rib.evaluation.settings import EpochFeatureSettings, SnapshotState

EPOCH_TABLES = {name: f"{METRICS}/tables/{name}.csv" for name in ("cka_epochs", "tradeoff_epochs")}
SNAPSHOTS = f"{RUNS}/snapshots/{RUN_PATH}"
KEPT = [
    f"snapshot{number}" for number in range(1, 11)
]  # at equal distances, whatever the number of epochs
EPOCH_FEATURES = f"{RUNS}/epochs/{RUN_PATH}/{{dataset}}"
EPOCH_RUNS = [run for run in COMPARED if GRID.methods[run.method].trains]
EPOCH_FILES = [
    f"{EPOCH_FEATURES}.safetensors".format(**vars(run), dataset=n)
    for run in EPOCH_RUNS
    for n in GRID.ood
]
EPOCH_ROWS = rows_of(EPOCH_RUNS, "evaluate_snapshots")
TRAINED = {
    name: style for name, style in COMPARED_SETTINGS["methods"].items() if GRID.methods[name].trains
}
EPOCH_SETTINGS = COMPARED_SETTINGS | {"methods": TRAINED}

OF_CKA = {"cka_epochs": EPOCH_TABLES["cka_epochs"]}
REGISTRY.figure(
    "cka_epochs", analysis="epochs", question="why", inputs=OF_CKA, settings=EPOCH_SETTINGS
)
REGISTRY.figure(
    "tradeoff_epochs",
    analysis="epochs",
    question="why",
    inputs={"tradeoff_epochs": EPOCH_TABLES["tradeoff_epochs"]},
    settings={key: EPOCH_SETTINGS[key] for key in ("models", "methods", "targets")} | ON_TARGET,
)
REGISTRY.analysis("epochs", tables=EPOCH_TABLES, figures=list(EPOCH_TABLES), optional=True)


use rule finetune as keep_snapshots with:
    input:
        unpack(training_inputs),
    output:
        **{
            name: f"results/{{family}}/{{protocol}}/snapshots/{{model}}/{{target}}/{{method}}/{{size}}/{{seed}}/{name}.safetensors"
            for name in KEPT
        },
        history="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/history.csv",
        manifest="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/snapshots/{model}/{target}/{method}/{size}/{seed}.log",


def epoch_feature_settings(wildcards):
    """Settings of a job that computes the features of snapshots."""
    settings = EpochFeatureSettings(
        view=view_of(wildcards.model, wildcards.dataset),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
        limit=CONFIG["representations"]["images"],
        code=digest("compute_epoch_features"),
    )
    return to_params(settings)


rule compute_epoch_features:
    input:
        unpack(
            lambda wildcards: dataset_inputs(
                "dataset", wildcards.dataset, GEOMETRY_OF[wildcards.model]
            )
        ),
        model=f"{MODEL}/manifest.json",
        weights=ancient(MODEL_WEIGHTS),
        manifest=f"{SNAPSHOTS}/manifest.json",
        snapshots=ancient([f"{SNAPSHOTS}/{name}.safetensors" for name in KEPT]),
    output:
        features="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        index="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.index.parquet",
        manifest="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/epochs/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=epoch_feature_settings,
    script:
        str(WORKFLOW / "scripts/compute_epoch_features.py")


def epoch_cka_settings(wildcards):
    """Settings of the job that compares representations in the course of training."""
    settings = EpochCkaSettings(
        snapshots=len(KEPT),
        ood_datasets=GRID.ood,
        confidence=CONFIDENCE,
        conditions=CONDITIONS,
        code=digest("compute_cka_epochs"),
    )
    return to_params(settings)


rule compute_cka_epochs:
    input:
        before_manifests=beside("manifest", PRETRAINED_FEATURES),
        before=ancient(PRETRAINED_FEATURES),
        after_manifests=beside("manifest", EPOCH_FILES),
        after=ancient(EPOCH_FILES),
        fit=TABLES["fit"],
    output:
        **table_files("cka_epochs", cka_epochs=EPOCH_TABLES["cka_epochs"]),
    log:
        f"{LOGS}/cka_epochs.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **KERNELS,
    params:
        cfg=epoch_cka_settings,
    script:
        "../../scripts/compute_cka_epochs.py"


# Those of a curve whose alpha is the share of training.
STATES_OF_SNAPSHOTS = tuple(
    SnapshotState(alpha=number / len(KEPT), weights={name: 1.0})
    for number, name in enumerate(KEPT, start=1)
)


def snapshot_inputs(wildcards):
    """Inputs of a job that evaluates snapshots, as `evaluate` has them."""
    run = columns_of(evaluated_run(wildcards))
    snapshots = [f"{SNAPSHOTS}/{name}.safetensors".format(**run) for name in KEPT]
    return {
        **evaluation_inputs(wildcards, EVALUATION_GROUPS[wildcards.group]),
        "trained": f"{SNAPSHOTS}/manifest.json".format(**run),
        "checkpoint_manifests": [],
        "checkpoints": ancient(snapshots),
    }


use rule evaluate as evaluate_snapshots with:
    input:
        unpack(snapshot_inputs),
    output:
        rows="results/{family}/{protocol}/evaluate_snapshots/{model}/{target}/{entry}/{size}/{seed}/{group}.parquet",
        manifest="results/{family}/{protocol}/evaluate_snapshots/{model}/{target}/{entry}/{size}/{seed}/{group}.manifest.json",
        provenance="results/{family}/{protocol}/evaluate_snapshots/{model}/{target}/{entry}/{size}/{seed}/{group}.provenance.json",
    log:
        "logs/{family}/{protocol}/evaluate_snapshots/{model}/{target}/{entry}/{size}/{seed}/{group}.log",
    wildcard_constraints:
        entry=of_form("finetune"),
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            EVALUATION_GROUPS[wildcards.group],
            MEMORY.evaluation_on_host(wildcards.model, networks=len(KEPT)),
        ),
        runtime=720,
    params:
        cfg=lambda wildcards: evaluation_settings(
            wildcards,
            EVALUATION_GROUPS[wildcards.group],
            parents=KEPT,
            snapshots=STATES_OF_SNAPSHOTS,
        ),


def epoch_tradeoff_settings(wildcards):
    """Settings of the job that computes mRI in the course of training."""
    settings = EpochTradeoffSettings(
        methods=[PRETRAINED, *methods_of(EPOCH_RUNS)],
        ood_datasets=GRID.ood,
        source_groups=GRID.leak_free_groups(),
        conditions=CONDITIONS,
        code=digest("tabulate_tradeoff_epochs"),
    )
    return to_params(settings)


rule tabulate_tradeoff_epochs:
    input:
        **INDEXED,
        manifests=beside("manifest", [*rows_of(PRETRAINED_RUNS.values()), *EPOCH_ROWS]),
        rows=ancient([*rows_of(PRETRAINED_RUNS.values()), *EPOCH_ROWS]),
    output:
        **table_files("tradeoff_epochs", tradeoff_epochs=EPOCH_TABLES["tradeoff_epochs"]),
    log:
        f"{LOGS}/tradeoff_epochs.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=epoch_tradeoff_settings,
    script:
        "../../scripts/tabulate_tradeoff_epochs.py"
