# Check the labels of targets before anything is fine-tuned on them: whether a pretrained model
# agrees better with shifted or re-sorted labels (rib.analysis.label_check).

from rib.analysis.settings import LabelCheckSettings

LABEL_CHECK = f"{RUNS}/labels/{{model}}/{{target}}"
# Models whose head has classes that others published, or is made from names of classes. Heads that
# are trained on the family's own labels can't contradict these.
MODELS_WITH_PUBLISHED_CLASSES = [
    name for name in GRID.models if GRID.head(name) in ("published", "zero_shot")
]


@cache
def groups_of_check(target):
    """Evaluation groups with the rows by which a target's labels are checked, its own first.

    Its accuracies are compared with those on other datasets. Very large ones are left out, so that
    no training waits until they are scored.
    """
    groups = GRID.groups_of(target)
    groups_of_target = set(groups)
    for group, datasets in EVALUATION_GROUPS.items():
        if group not in groups_of_target and not LARGE_DATASETS.intersection(datasets):
            groups.append(group)
    return groups


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
    """Inputs of a job that checks the labels of a target, by name.

    It is one function, since every input function slows down large dry-runs.
    """
    geometry = GEOMETRY_OF[wildcards.model]
    pretrained_run = PRETRAINED_RUNS[wildcards.model]
    rows = rows_of([pretrained_run], groups=groups_of_check(wildcards.target))
    return {
        "manifests": beside("manifest", rows),
        "rows": ancient(rows),
        "dataset": prepared("manifest.json", wildcards.target, geometry),
        "index": ancient(prepared("index.parquet", wildcards.target, geometry)),
        "classes": ancient(prepared("classes.json", wildcards.target, geometry)),
    }


def label_check_settings(wildcards):
    """Settings of a job that checks the labels of a target."""
    settings = LabelCheckSettings(
        labels_checked=GRID.datasets[wildcards.target].labels_checked,
        code=digest("check_labels"),
    )
    return to_params(settings)


rule check_labels:
    input:
        unpack(label_check_inputs),
    output:
        verdict=f"{LABEL_CHECK}.json",
        provenance=f"{LABEL_CHECK}.provenance.json",
    log:
        f"{RUN_LOGS}/labels/{{model}}/{{target}}.log",
    priority: 2
    # It takes seconds, for which trainings on a cluster need not queue twice.
    localrule: True
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards: memory_of([wildcards.target], 2000),
        runtime=30,
    params:
        cfg=label_check_settings,
    script:
        "../scripts/check_labels.py"
