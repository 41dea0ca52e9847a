# Check the labels of targets before anything is fine-tuned on them: whether a pretrained model
# agrees better with shifted or re-sorted labels (rib.statistics.label_check).

from rib.evaluation.settings import LabelCheckSettings

LABEL_CHECK = f"{RUNS}/labels/{{model}}/{{target}}"
# Models whose head has classes that others published, or is made from names of classes. Heads that
# are trained on the family's own labels can't contradict these.
MODELS_WITH_PUBLISHED_CLASSES = [
    name for name in GRID.models if GRID.head(name) in ("published", "zero_shot")
]


def compared_datasets(target):
    """Datasets on which a network is compared with its accuracy on a target, the target first.

    Very large ones are left out, since their index takes long to read.
    """
    names = [name for name in GRID.datasets if name not in LARGE_DATASETS]
    return list(dict.fromkeys([target, *names]))


def verdicts_on_labels(run):
    """The verdict on the labels of a run's target, for which its trainings wait.

    `run` is a run or the wildcards of one. The file is in a list, which is empty if the labels
    can't be checked by the run's model, and under protocol held_out, where sweeps score nothing but
    select splits.
    """
    if run.model not in MODELS_WITH_PUBLISHED_CLASSES or CONFIG["protocol"] == "held_out":
        return []
    return [f"{LABEL_CHECK}.json".format(model=run.model, target=run.target)]


# Verdicts on all targets that models are trained on here.
LABEL_VERDICTS = list(
    dict.fromkeys(verdict for run in TRAINED_RUNS for verdict in verdicts_on_labels(run))
)


def label_check_inputs(wildcards):
    """Inputs of a job that checks the labels of a target, by name."""
    geometry = GEOMETRY_OF[wildcards.model]
    names = compared_datasets(wildcards.target)
    return {
        "model": f"{MODEL}/manifest.json".format(model=wildcards.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=wildcards.model)),
        "datasets": [prepared("manifest.json", name, geometry) for name in names],
        "dataset_files": ancient(files_at(geometry, names)),
        "proxy": proxy_of(geometry, names),
    }


def label_check_settings(wildcards):
    """Settings of a job that checks the labels of a target."""
    names = compared_datasets(wildcards.target)
    settings = LabelCheckSettings(
        datasets=names,
        excludes_proxy=[name for name in names if GRID.excludes_proxy(name)],
        view=view_of(wildcards.model, *names),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
        labels_checked=GRID.datasets[wildcards.target].labels_checked,
    )
    return to_params(settings)


rule check_labels:
    input:
        unpack(label_check_inputs),
    output:
        verdict="results/{family}/{protocol}/labels/{model}/{target}.json",
        provenance="results/{family}/{protocol}/labels/{model}/{target}.provenance.json",
    log:
        "logs/{family}/{protocol}/labels/{model}/{target}.log",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for(compared_datasets(wildcards.target))
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            PRETRAINED_RUNS[wildcards.model], compared_datasets(wildcards.target), attempt
        ),
        runtime=60,
    params:
        cfg=label_check_settings,
    script:
        "../scripts/check_labels.py"
