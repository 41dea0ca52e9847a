# Check the labels of targets before anything is fine-tuned on them: whether a pretrained model
# agrees better with shifted or re-sorted labels (rib.statistics.label_check).

from rib.evaluation.settings import LabelCheckSettings


def compared_datasets(target):
    """Datasets on which a network is compared with its accuracy on a target, the target first.

    Very large ones are left out, since their index takes long to read.
    """
    names = [name for name in GRID.datasets if name not in LARGE_DATASETS]
    return list(dict.fromkeys([target, *names]))


def label_check_inputs(wildcards):
    """Inputs of a job that checks the labels of a target, by name."""
    geometry = PATHS.geometry_of(wildcards.model)
    names = compared_datasets(wildcards.target)
    return {
        "model": PATHS.model("manifest.json", wildcards.model),
        "weights": ancient(PATHS.model("weights.safetensors", wildcards.model)),
        "datasets": [PATHS.prepared("manifest.json", name, geometry) for name in names],
        "dataset_files": ancient(PATHS.prepared_files(geometry, names)),
        "proxy": PATHS.proxy(geometry, names),
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
            PATHS.pretrained_runs[wildcards.model], compared_datasets(wildcards.target), attempt
        ),
        runtime=60,
    params:
        cfg=label_check_settings,
    script:
        "../scripts/check_labels.py"
