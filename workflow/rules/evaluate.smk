# Evaluate one run on one evaluation group: one row per image, from which all results are computed.

from rib.evaluation.settings import EvaluationSettings
from snakemake_internals.call import before_graph

# Limits of time of jobs that score a run; the long one is for very large datasets.
MINUTES_OF_EVALUATION = 120
MINUTES_OF_LONG_EVALUATION = 720

# Rows of a run on the select split of its target, by which variants and learning rates are chosen.
SELECT_SPLIT = f"{RUNS}/select/{RUN_PATH}/{{evaluation_group}}"


def rows_on_select_splits(runs):
    """Files with the rows of the given runs on the select splits of their targets."""
    files = []
    for run in runs:
        for group in GRID.groups_of(run.target):
            files.append(f"{SELECT_SPLIT}.parquet".format(**vars(run), evaluation_group=group))
    return files


def rows_of(runs, stage="evaluate", groups=EVALUATION_GROUPS):
    """Files with the rows of the given runs, for all evaluation groups or the given ones.

    One of them is results/emoji/paper/evaluate/net/noto/ft/all/0/emoji.parquet.
    """
    path = f"{RUNS}/{stage}/{RUN_PATH}/{{group}}.parquet"
    return [path.format(**vars(run), group=group) for run in runs for group in groups]


def state_inputs(wildcards):
    """Inputs from which a run's weights are made, by name.

    They are the pretrained model, the checkpoints of the parents, and of a merge its file and,
    if it needs it, the Fisher information of its parents. Large files are `ancient`, since jobs
    watch their manifests instead.
    """
    method = wildcards.method
    is_merge = method != PRETRAINED and GRID.methods[method].form in MERGES
    parents = PARENTS[method]
    return {
        "model": f"{MODEL}/manifest.json".format(model=wildcards.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=wildcards.model)),
        "merge": f"{MERGE}/merge.json".format(**wildcards) if is_merge else [],
        "manifests": checkpoint_files("manifest.json", wildcards, parents),
        "checkpoints": ancient(checkpoint_files("checkpoint.safetensors", wildcards, parents)),
        "fisher_manifests": fisher_files("manifest.json", wildcards),
        "fisher": ancient(fisher_files("safetensors", wildcards)),
    }


def evaluation_inputs(wildcards, datasets):
    """Inputs of a job that scores a run on datasets of an evaluation group, by name.

    It is one function, since every input function slows down large dry-runs.
    """
    return {
        **state_inputs(wildcards),
        **inputs_of_group(
            GEOMETRY_OF[wildcards.model], wildcards.evaluation_group, tuple(datasets)
        ),
    }


@cache
def inputs_of_group(geometry, evaluation_group, datasets):
    """Inputs of a job that reads datasets of an evaluation group at a geometry, by name."""
    group = GROUP.format(evaluation_group=evaluation_group, geometry=geometry)
    return {
        "evaluation_group": f"{group}/manifest.json",
        "proxy": proxy_of(geometry, datasets),
        "splits": splits_of(geometry, datasets),
    }


def evaluation_settings(wildcards, datasets, **changes):
    """Settings of a job that scores a run on datasets of an evaluation group.

    `changes` are those fields of EvaluationSettings that some rules set.
    """
    fields = {
        "parents": PARENTS[wildcards.method],
        "algorithm": algorithm_on_loading(wildcards.method),
        "view": view_of(wildcards.model, *datasets),
        "evaluation_batch_size": EVALUATION_BATCH_SIZE,
        "compute": COMPUTE,
        "excludes_proxy": [name for name in datasets if GRID.excludes_proxy(name)],
        "split": datasets if GRID.split_fractions else [],
        "code": digest_with_loading("evaluate_run", wildcards.method),
    }
    return to_params(EvaluationSettings(**{**fields, **changes}))


@signed
def evaluated_datasets_inputs(wildcards):
    """Inputs of an evaluate_run job, by name."""
    return evaluation_inputs(wildcards, EVALUATION_GROUPS[wildcards.evaluation_group])


@signed
def priority_of_evaluation(wildcards):
    """Scores of pretrained models come first, since trainings wait for them (labels.smk)."""
    return 2 if wildcards.method == PRETRAINED else 1


@signed
def shared_job(wildcards):
    """Group of evaluate_run jobs that may share a cluster job, if the profile defines its size.

    Scores of pretrained models are not in it: trainings wait for them (labels.smk), so a cluster job
    with them and with scores of what is trained would wait for itself.
    """
    is_long = LARGE_DATASETS.intersection(EVALUATION_GROUPS[wildcards.evaluation_group])
    is_awaited = wildcards.method == PRETRAINED
    if is_long or is_awaited:
        return None
    return "scores"


def leave_out_unused_groups():
    """Let no job be in the group of `shared_job` if the profile does not define its size.

    Snakemake asks for the group of each job three times.
    """
    if "scores" not in workflow.group_settings.group_components:
        for grouped_rule in workflow.rules:
            grouped_rule.group = None


before_graph(workflow, leave_out_unused_groups)


@signed
def threads_of_evaluation(wildcards):
    """Threads of a job that scores a run on an evaluation group."""
    return threads_for(EVALUATION_GROUPS[wildcards.evaluation_group])


@signed
def memory_of_group(wildcards, attempt):
    """Megabytes of a job that scores a run on an evaluation group."""
    datasets = EVALUATION_GROUPS[wildcards.evaluation_group]
    return memory_of_evaluation(wildcards, datasets, attempt)


@signed
def minutes_of_evaluation(wildcards):
    """Limit of time of a job that scores a run on an evaluation group."""
    if LARGE_DATASETS.intersection(EVALUATION_GROUPS[wildcards.evaluation_group]):
        return MINUTES_OF_LONG_EVALUATION
    return MINUTES_OF_EVALUATION


@signed
def settings_of_evaluation(wildcards):
    """Settings of an evaluate_run job."""
    return evaluation_settings(wildcards, EVALUATION_GROUPS[wildcards.evaluation_group])


# The rules that score the select split and snapshots inherit from this one.
rule evaluate_run:
    input:
        unpack(evaluated_datasets_inputs),
    output:
        **job_files(f"{RUNS}/evaluate/{RUN_PATH}/{{evaluation_group}}", rows="parquet"),
    log:
        f"{RUN_LOGS}/evaluate/{RUN_PATH}/{{evaluation_group}}.log",
    priority: priority_of_evaluation
    group:
        shared_job
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: threads_of_evaluation
    resources:
        gpu=GPU,
        # evaluations that share a cluster job run one at a time
        turn=1,
        mem_mb=memory_of_group,
        runtime=minutes_of_evaluation,
    params:
        cfg=settings_of_evaluation,
    script:
        str(WORKFLOW / "scripts/evaluate_run.py")


if GRID.split_fractions:

    use rule evaluate_run as score_select_split with:
        input:
            unpack(lambda wildcards: evaluation_inputs(wildcards, [wildcards.target])),
        output:
            **job_files(SELECT_SPLIT, rows="parquet"),
        log:
            f"{RUN_LOGS}/select/{RUN_PATH}/{{evaluation_group}}.log",
        params:
            cfg=lambda wildcards: evaluation_settings(
                wildcards, [wildcards.target], only=[wildcards.target], part="select"
            ),
