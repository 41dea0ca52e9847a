# Merges of weights are stored as recipes over checkpoints, and computed on loading.

from rib.config.settings import constant, takes_fisher

MERGE = f"{RUNS}/merge/{RUN_PATH}"
RECIPE = {name: f"{MERGE}/{name}.json" for name in ("recipe", "provenance")}
MERGED_RUNS = [
    r for r in GRID.runs() if r.method != PRETRAINED and GRID.methods[r.method].form in MERGES
]
MERGED_RUNS += GRID.runs_over_targets()
# File of the algorithm, in a list, of methods whose network it makes when a run is loaded.
ON_LOADING = {
    name: [CATALOG.algorithm_file(m.algorithm)]
    for name, m in GRID.methods.items()
    if m.form in LOADED
}


def loading_settings(stage, w, *modules):
    """Settings of a job that loads a run: the algorithm that makes its network, if any, and the digest of all code."""
    files = ON_LOADING.get(w.method, [])
    return {"algorithm": local(path) for path in files} | {"code": digest(stage, *modules, *files)}


def fisher_files(ending, w):
    """A file of the Fisher information of each parent, if the algorithm asks for it."""
    if not any(map(takes_fisher, ON_LOADING.get(w.method, []))):
        return []
    run = {key: getattr(w, key) for key in RUN_COLUMNS}  # of wildcards or a run
    run["fisher_images"] = GRID.methods[w.method].settings["fisher_images"]
    return [f"{FISHER}.{ending}".format(**{**run, **parent_of(key)}) for key in PARENTS[w.method]]


def refuse_parents():
    """Raise a UserError if a merge can't be made of its parents, before anything is trained."""
    for name in dict.fromkeys(run.method for run in MERGED_RUNS):
        method, number = GRID.methods[name], len(PARENTS[name])
        least = constant(CATALOG.algorithm_file(method.algorithm), "FEWEST_PARENTS", 1)
        if number < least:
            raise UserError(
                f"method '{name}' merges at least {least} parents, but has {number}; add others."
            )
        for parent in method.parents:
            if GRID.methods[parent].algorithm == "visual_prompt":
                raise UserError(
                    f"method '{name}': its parent '{parent}' trains a padding prompt; choose another."
                )


refuse_parents()


rule merge_weights:
    input:
        manifests=lambda w: checkpoint_files("manifest.json", w, PARENTS[w.method]),
    output:
        **RECIPE,
    log:
        f"{RUN_LOGS}/merge/{RUN_PATH}.log",
    wildcard_constraints:
        method=of_form("recipe", "curve", "merge", "ensemble"),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        # The recipe of what is computed on loading doesn't depend on the algorithm's code.
        cfg=lambda w: method_settings("merge_weights", w, form=GRID.methods[w.method].form)
        | ({"code": digest("merge_weights")} if w.method in ON_LOADING else {}),
    script:
        "../scripts/merge_weights.py"


def selection_inputs(w):
    """Inputs of a job that chooses weights, by name."""
    images = {"watched": ancient(prepared("images.npy", w.target, GEOMETRY_OF[w.model]))}
    return {
        **state_inputs(w),
        **dataset_inputs("target", w.target, GEOMETRY_OF[w.model]),
        **images,
        "recipe": [],
    }


# Score candidates on the select split of the target; the recipe contains their accuracies.
rule select_weights:
    input:
        unpack(selection_inputs),
    output:
        **RECIPE,
    log:
        f"{RUN_LOGS}/merge/{RUN_PATH}.log",
    wildcard_constraints:
        method=of_form("select"),
    conda:
        "../../envs/torch.yaml"
    threads: lambda w: threads_for([w.target])
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: method_settings(
            "select_weights", w, view=VIEW_OF[w.model], batch_size=BATCH_SIZE, compute=COMPUTE
        ),
    script:
        "../scripts/select_weights.py"
