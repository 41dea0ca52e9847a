# Evaluate one run on one evaluation group: one row per image, from which all results are computed.


def rows_of(runs, stage="evaluate", groups=EVALUATION_GROUPS):
    """Files with the rows of the given runs, for all evaluation groups or the given ones."""
    path = f"{RUNS}/{stage}/{RUN_PATH}/{{group}}.parquet"
    return [path.format(**vars(run), group=group) for run in runs for group in groups]


def state_inputs(w):
    """Inputs from which a run's weights are made, by name."""
    merged = w.method != PRETRAINED and GRID.methods[w.method].form in MERGES
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        "recipe": f"{MERGE}/recipe.json".format(**w) if merged else [],
        "manifests": checkpoint_files("manifest.json", w, PARENTS[w.method]),
        "checkpoints": ancient(checkpoint_files("checkpoint.safetensors", w, PARENTS[w.method])),
        "fisher_manifests": fisher_files("manifest.json", w),
        "fisher": ancient(fisher_files("safetensors", w)),
    }


def evaluation_inputs(w, datasets):
    """Inputs of an evaluate_run job, by name; one function, since every input function slows down large dry-runs."""
    geometry = GEOMETRY_OF[w.model]
    return {
        **state_inputs(w),
        "evaluation_group": f"{GROUP}/manifest.json".format(
            evaluation_group=w.evaluation_group, geometry=geometry
        ),
        "proxy": proxy_of(geometry, datasets),
        "splits": splits_of(geometry, datasets),
    }


def evaluation_settings(w, datasets, **more):
    """Settings of a job that scores a run on datasets of an evaluation group."""
    return {
        "parents": PARENTS[w.method],
        "view": VIEW_OF[w.model],
        "excludes_proxy": [name for name in datasets if GRID.excludes_proxy(name)],
        "split": datasets if GRID.split_fractions else [],
        "batch_size": BATCH_SIZE,
        "compute": COMPUTE,
        **more,
        **loading_settings("evaluate_run", w),
    }


def shared_job(w):
    """Group of evaluate_run jobs that may share a cluster job, if the profile defines its size."""
    long = LARGE_DATASETS.intersection(EVALUATION_GROUPS[w.evaluation_group])
    return "scores" if "scores" in workflow.group_settings.group_components and not long else None


# The rules that score the select split and snapshots inherit from this one.
rule evaluate_run:
    input:
        unpack(lambda w: evaluation_inputs(w, EVALUATION_GROUPS[w.evaluation_group])),
    output:
        **job_files(f"{RUNS}/evaluate/{RUN_PATH}/{{evaluation_group}}", rows="parquet"),
    log:
        f"{RUN_LOGS}/evaluate/{RUN_PATH}/{{evaluation_group}}.log",
    priority: lambda w: 2 if w.method == PRETRAINED else 1
    group:
        shared_job
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda w: threads_for(EVALUATION_GROUPS[w.evaluation_group])
    resources:
        gpu=GPU,
        # evaluations that share a cluster job run one at a time
        turn=1,
        # a curve keeps one network per alpha in memory, an ensemble one per parent
        mem_mb=lambda w: (
            16000
            if w.method in [*CURVES, *ENSEMBLES]
            else memory_of(EVALUATION_GROUPS[w.evaluation_group], 4000)
        ),
        runtime=lambda w: (
            720 if LARGE_DATASETS.intersection(EVALUATION_GROUPS[w.evaluation_group]) else 120
        ),
    params:
        cfg=lambda w: evaluation_settings(w, EVALUATION_GROUPS[w.evaluation_group]),
    script:
        str(WORKFLOW / "scripts/evaluate_run.py")
