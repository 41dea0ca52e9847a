# Fine-tune one pretrained model on one target with one method. Only changed tensors are stored.

CHECKPOINT = f"{RUNS}/finetune/{RUN_PATH}"
# Fisher information of a run on its target, or of the pretrained model on the pretraining proxy. Its name is the largest
# number of images, and `_empirical` if labels are the images' own.
FISHER = f"{RUNS}/fisher/{RUN_PATH}/{{fisher_images}}"
CHECKPOINTING = {"gradient_checkpointing": CONFIG["compute"]["gradient_checkpointing"]}
CHECKPOINT_RUNS = [
    r for r in GRID.runs() if r.method != PRETRAINED and GRID.methods[r.method].form not in MERGES
]
TRAINED_RUNS = [run for run in CHECKPOINT_RUNS if GRID.methods[run.method].trains]
# Keys of the checkpoints that make up a run's weights, by method: none, the method itself, or the parents of a merge.
PARENTS = {PRETRAINED: []}
PARENTS |= {
    name: GRID.parents_of(name) if m.form in MERGES else [name] for name, m in GRID.methods.items()
}


def checkpoint_files(file, w, parents):
    """A file of each parent's checkpoint, for the model, target, size and seed of a run unless its key says otherwise."""
    return [f"{CHECKPOINT}/{file}".format(**{**w, **parent_of(key)}) for key in parents]


def reference_inputs(role, model):
    """Inputs of a job that reads the pretraining proxy, by name, with a role in these names."""
    name, geometry = GRID.reference.dataset.name, GEOMETRY_OF[model]
    is_whole_dataset = GRID.reference.images_per_class is None
    return {
        role: prepared("manifest.json", name, geometry),
        f"{role}_split": next(iter(splits_of(geometry, [name] if is_whole_dataset else [])), []),
    }


def shared_fisher_files(ending, w):
    """A file of the Fisher information that a method's trainings of a model and seed share, in a list; none if they don't."""
    shared = GRID.shared_fisher(w.method)
    if shared is None:
        return []
    images, kind = shared
    run = {**vars(PRETRAINED_RUNS[w.model]), "seed": w.seed}
    name = images if kind == "sampled" else f"{images}_{kind}"
    return [f"{FISHER}.{ending}".format(**run, fisher_images=name)]


def shared_fisher_inputs(w):
    """Inputs of a job that trains with Fisher information from a job of its own, by name; none for other runs."""
    if not shared_fisher_files("safetensors", w):
        return {}
    (manifest,), (fisher,) = (
        shared_fisher_files(ending, w) for ending in ("manifest.json", "safetensors")
    )
    return {"fisher_manifest": manifest, "shared_fisher": ancient(fisher)}


def training_inputs(w):
    """Inputs of a job that trains a run, by name."""
    geometry, start = GEOMETRY_OF[w.model], GRID.methods[w.method].parents
    uses_proxy = GRID.reference is not None and GRID.methods[w.method].reference != "no"
    return {
        "model": f"{MODEL}/manifest.json".format(model=w.model),
        "weights": ancient(MODEL_WEIGHTS.format(model=w.model)),
        **dataset_inputs("target", w.target, geometry),
        **(
            reference_inputs("reference", w.model)
            if uses_proxy
            else {"reference": [], "reference_split": []}
        ),
        "manifests": checkpoint_files("manifest.json", w, start),
        "checkpoints": ancient(checkpoint_files("checkpoint.safetensors", w, start)),
        **text_inputs(w),
        **shared_fisher_inputs(w),
    }


def monitored_inputs(w):
    """Datasets whose accuracy is shown in the course of training. None is made for the sake of a training that is done."""
    done = (
        Path(f"{CHECKPOINT}/manifest.json".format(**w)).exists()
        or not GRID.methods[w.method].trains
    )
    geometry, names = GEOMETRY_OF[w.model], CONFIG["monitor"]
    related = [name for name in names if GRID.excludes_proxy(name)]
    files = {
        "monitored": [prepared("manifest.json", name, geometry) for name in names],
        "monitored_splits": splits_of(geometry, names),
        "monitored_related": [prepared("manifest.json", name, geometry) for name in related],
    }
    proxy = proxy_of(geometry, related)
    if done:
        files = {
            role: [path for path in paths if Path(path).exists()] for role, paths in files.items()
        }
        proxy = proxy if proxy and Path(proxy).exists() else []
    return {role: ancient(paths) for role, paths in files.items()} | {
        "monitored_proxy": ancient(proxy)
    }


for NAME in CONFIG["monitor"]:
    known_name(NAME, GRID.datasets, "dataset of this run", "config, monitor")


def method_settings(stage, w, **more):
    """Settings of a job that runs a method's algorithm."""
    method = GRID.methods[w.method]
    algorithm = CATALOG.algorithm_file(method.algorithm)
    own = {
        "algorithm": local(algorithm),
        "settings": method.settings,
        "parents": GRID.parents_of(w.method),
    }
    return {**own, **more, "code": digest(stage, algorithm)}


rule finetune:
    input:
        unpack(training_inputs),
        unpack(monitored_inputs),
    output:
        **job_files(
            CHECKPOINT, inside=True, checkpoint="checkpoint.safetensors", history="history.csv"
        ),
    log:
        f"{RUN_LOGS}/finetune/{RUN_PATH}.log",
    wildcard_constraints:
        method=of_form("finetune"),
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda w: threads_for([w.target])
    resources:
        gpu=GPU,
        mem_mb=lambda w: memory_of([w.target], 4000),
        runtime=lambda w: 2880 if w.target in LARGE_DATASETS else 240,
    params:
        cfg=lambda w: method_settings(
            "finetune",
            w,
            training=GRID.training(w.method),
            view=VIEW_OF[w.model],
            compute=COMPUTE | CHECKPOINTING,
        ),
    script:
        str(WORKFLOW / "scripts/finetune.py")
