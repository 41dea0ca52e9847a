# Evaluate networks on a group of datasets: one row per network and image, from which all results
# are computed. A group is all small datasets of the family, or one part of a large dataset. An
# entry is a catalogue entry of a method with some of its settings: `ft` has one network,
# `wise_ft-alpha` one for each alpha that the family states. A job reads each image once for all
# networks of an entry.

from rib.grid.compared_runs import SNAPSHOTS
from rib.grid.evaluation_groups import levels_of_other_parts, part_of_group
from rib.schema.part import DatasetPart
from rib.evaluation.evaluation_settings import (
    EvaluationSettings,
    LabelCheckSettings,
    NetworkSettings,
)

# Time limits if the plan has no estimate; the long one is for very large datasets.
MINUTES_OF_EVALUATION = 120
MINUTES_OF_LONG_EVALUATION = 720

# {"ft": "ft", "wise_ft-alpha0.25": "wise_ft-alpha", "wise_ft-alpha0.5": "wise_ft-alpha"}
ENTRY_OF_METHOD = {name: GRID.evaluation_of(name) for name in (PRETRAINED, *GRID.methods)}
# Any method of each entry (the last): all methods of an entry are made from the same files.
METHOD_OF_ENTRY = {entry: method for method, entry in ENTRY_OF_METHOD.items()}


def evaluated_run(wildcards):
    """A run that stands for the entry of a job."""
    return Run(
        wildcards.model,
        wildcards.target,
        METHOD_OF_ENTRY[wildcards.entry],
        wildcards.size,
        int(wildcards.seed),
    )


def evaluation_inputs(wildcards, datasets):
    """Inputs of a job that evaluates an entry on datasets, by name."""
    geometry = PATHS.geometry_of(wildcards.model)
    return {
        **network_files(evaluated_run(wildcards)),
        "datasets": [PATHS.prepared("manifest.json", name, geometry) for name in datasets],
        "dataset_files": ancient(PATHS.prepared_files(geometry, datasets)),
        "proxy": PATHS.proxy(geometry, datasets),
        "splits": PATHS.splits(geometry, datasets),
    }


def evaluation_settings(wildcards, datasets, **changes):
    """Settings of a job that evaluates an entry on datasets: on the test splits, if there are any.

    `changes` are other values for fields of EvaluationSettings.
    """
    method = METHOD_OF_ENTRY[wildcards.entry]
    evaluated = GRID.methods[method].evaluated if method != PRETRAINED else {}
    part = part_of_group(GRID, wildcards.group)
    fields = {
        "parents": PATHS.parents[method],
        "merge": merge_of(method, evaluated),
        "view": view_of(wildcards.model, *datasets),
        "evaluation_batch_size": EVALUATION_BATCH_SIZE,
        "compute": COMPUTE,
        "datasets": datasets,
        "excludes_proxy": [name for name in datasets if GRID.excludes_proxy(name)],
        "part": None if part is None else DatasetPart(**part),
        "other_levels": () if part is None else levels_of_other_parts(GRID, wildcards.group),
        "code": digest_with_merge("evaluate", method),
    }
    return to_params(EvaluationSettings(**{**fields, **changes}))


def memory_of_entry(wildcards, attempt):
    """Megabytes of a job that evaluates an entry; a repeated job asks for more."""
    run = evaluated_run(wildcards)
    return memory_of_evaluation(run, EVALUATION_GROUPS[wildcards.group], attempt)


def minutes_of_evaluation(wildcards, attempt):
    """Time limit of a job that evaluates an entry; a repeated job starts anew with more time."""
    method = METHOD_OF_ENTRY[wildcards.entry]
    minutes = RUN_TIMES.of_evaluation(wildcards.model, method, wildcards.group)
    if minutes is None:
        is_long = LARGE_DATASETS.intersection(EVALUATION_GROUPS[wildcards.group])
        minutes = MINUTES_OF_LONG_EVALUATION if is_long else MINUTES_OF_EVALUATION
    return time_limit(attempt * minutes)


# Rules for select splits, snapshots and merges over targets inherit from this one.
rule evaluate:
    input:
        unpack(lambda wildcards: evaluation_inputs(wildcards, EVALUATION_GROUPS[wildcards.group])),
    output:
        rows="results/{family}/{protocol}/evaluate/{model}/{target}/{entry}/{size}/{seed}/{group}.parquet",
        manifest="results/{family}/{protocol}/evaluate/{model}/{target}/{entry}/{size}/{seed}/{group}.manifest.json",
        provenance="results/{family}/{protocol}/evaluate/{model}/{target}/{entry}/{size}/{seed}/{group}.provenance.json",
    log:
        "logs/{family}/{protocol}/evaluate/{model}/{target}/{entry}/{size}/{seed}/{group}.log",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for(EVALUATION_GROUPS[wildcards.group])
    resources:
        **GPU_JOB,
        mem_mb=memory_of_entry,
        runtime=minutes_of_evaluation,
    params:
        cfg=lambda wildcards: evaluation_settings(wildcards, EVALUATION_GROUPS[wildcards.group]),
    script:
        "../scripts/evaluate.py"


if GRID.split_fractions:

    use rule evaluate as evaluate_select_split with:
        input:
            unpack(lambda wildcards: evaluation_inputs(wildcards, [wildcards.target])),
        output:
            rows="results/{family}/{protocol}/select/{model}/{target}/{entry}/{size}/{seed}/{group}.parquet",
            manifest="results/{family}/{protocol}/select/{model}/{target}/{entry}/{size}/{seed}/{group}.manifest.json",
            provenance="results/{family}/{protocol}/select/{model}/{target}/{entry}/{size}/{seed}/{group}.provenance.json",
        log:
            "logs/{family}/{protocol}/select/{model}/{target}/{entry}/{size}/{seed}/{group}.log",
        params:
            cfg=lambda wildcards: evaluation_settings(wildcards, [wildcards.target], split="select"),


if GRID.over_targets:

    use rule evaluate as evaluate_over_targets with:
        input:
            unpack(
                lambda wildcards: evaluation_inputs(
                    wildcards, PATHS.groups_not_trained_on[wildcards.group]
                )
            ),
        output:
            rows="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.parquet",
            manifest="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.manifest.json",
            provenance="results/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.provenance.json",
        log:
            "logs/{family}/{protocol}/evaluate_over_targets/{model}/{target}/{entry}/{size}/{seed}/{group}.log",
        params:
            cfg=lambda wildcards: evaluation_settings(
                wildcards, PATHS.groups_not_trained_on[wildcards.group]
            ),


def snapshot_inputs(wildcards):
    """Inputs of `evaluate`, with snapshots as checkpoints."""
    folder = f"{PATHS.stage('snapshots')}/{evaluated_run(wildcards)}"
    return {
        **evaluation_inputs(wildcards, EVALUATION_GROUPS[wildcards.group]),
        "trained": f"{folder}/manifest.json",
        "checkpoint_manifests": [],
        "checkpoints": ancient([f"{folder}/{name}.safetensors" for name in SNAPSHOTS]),
    }


# Snapshots are scored like points of a curve; alpha is the finished share of training.
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
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            EVALUATION_GROUPS[wildcards.group],
            MEMORY.evaluation_on_host(wildcards.model, networks=len(SNAPSHOTS)),
        ),
        runtime=time_limit(720),
    params:
        cfg=lambda wildcards: evaluation_settings(
            wildcards,
            EVALUATION_GROUPS[wildcards.group],
            parents=SNAPSHOTS,
            snapshots=True,
        ),


# Merges: checks of their parents, and selection on held-out images. Jobs that use other merges
# compute these networks themselves.


def refuse_parents():
    """Refuse a merge with too few parents, or with a padding prompt, which can't be averaged."""
    names_of_merges = dict.fromkeys(run.method for run in PATHS.merged_runs)
    for name in names_of_merges:
        method = GRID.methods[name]
        number = len(PATHS.parents[name])
        if number < method.fewest_parents:
            raise UserError(
                f"method '{name}' merges at least {method.fewest_parents} parents, but has "
                f"{number}; add others."
            )
        for parent in method.parents:
            if GRID.methods[parent].padding_prompt:
                raise UserError(
                    f"method '{name}': its parent '{parent}' trains a padding prompt; "
                    "choose another."
                )


refuse_parents()


def selection_inputs(wildcards):
    """Inputs of a job that selects a merge, by name."""
    return {
        **network_files(Run.from_wildcards(wildcards)),
        **dataset_inputs("target", wildcards.target, PATHS.geometry_of(wildcards.model)),
        "dataset_files": ancient(
            PATHS.prepared("images.npy", wildcards.target, PATHS.geometry_of(wildcards.model))
        ),
        "selection": [],  # this job writes it
    }


def selection_settings(wildcards):
    method = GRID.methods[wildcards.method]
    algorithm = CATALOG.algorithm_file(method.algorithm)
    fields = {
        **network_settings(wildcards),
        "merge": MergeSettings(
            form=SELECT,
            algorithm=local(algorithm),
            settings={wildcards.method: method.settings},
        ),
    }
    settings = NetworkSettings(**fields, code=digest("select_coefficients", algorithm))
    return to_params(settings)


# Score candidates on the target's select split; the file lists their accuracies.
rule select_coefficients:
    input:
        unpack(selection_inputs),
    output:
        selection="results/{family}/{protocol}/merge/{model}/{target}/{method}/{size}/{seed}/selection.json",
        provenance="results/{family}/{protocol}/merge/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/merge/{model}/{target}/{method}/{size}/{seed}.log",
    wildcard_constraints:
        method=of_form("select"),
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: threads_for([wildcards.target])
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.target], attempt
        ),
        runtime=time_limit(60),
    params:
        cfg=selection_settings,
    script:
        "../scripts/select_coefficients.py"


# Check the labels of all evaluated datasets: does a pretrained model agree better with shifted or
# re-sorted labels (rib.statistics.label_check)? One job predicts the first images of each dataset.


def label_check_inputs(wildcards):
    """Inputs of a job that checks the labels of all evaluated datasets, by name."""
    geometry = PATHS.geometry_of(wildcards.model)
    return {
        "model": PATHS.model("manifest.json", wildcards.model),
        "weights": ancient(PATHS.model("weights.safetensors", wildcards.model)),
        "datasets": [PATHS.prepared("manifest.json", name, geometry) for name in GRID.datasets],
        "dataset_files": ancient(PATHS.prepared_files(geometry, GRID.datasets)),
        "proxy": PATHS.proxy(geometry, GRID.datasets),
    }


def label_check_settings(wildcards):
    settings = LabelCheckSettings(
        datasets=list(GRID.datasets),
        excludes_proxy=[name for name in GRID.datasets if GRID.excludes_proxy(name)],
        view=view_of(wildcards.model, *GRID.datasets),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
        labels_checked=[name for name, entry in GRID.datasets.items() if entry.labels_checked],
        code=digest("check_labels"),
    )
    return to_params(settings)


rule check_labels:
    input:
        unpack(label_check_inputs),
    output:
        verdicts="results/{family}/{protocol}/labels/{model}/verdicts.json",
        provenance="results/{family}/{protocol}/labels/{model}/verdicts.provenance.json",
    log:
        "logs/{family}/{protocol}/labels/{model}.log",
    priority: 1  # before trainings, which would be in vain with wrong labels
    conda:
        "../../envs/torch.yaml"
    threads: threads_for(GRID.datasets)
    resources:
        **GPU_JOB,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            PATHS.pretrained_runs[wildcards.model], GRID.datasets, attempt
        ),
        runtime=time_limit(MINUTES_OF_EVALUATION),
    params:
        cfg=label_check_settings,
    script:
        "../scripts/check_labels.py"
