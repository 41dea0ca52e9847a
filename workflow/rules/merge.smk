# Merges of weights are stored as recipes over checkpoints, and computed on loading.

MERGE = f"{RUNS}/merge/{RUN_PATH}"
MERGED_RUNS = [r for r in GRID.runs() if r.method != PRETRAINED and GRID.methods[r.method].form in MERGES]
MERGED_RUNS += GRID.runs_over_targets()


rule merge_weights:
    input:
        manifests=lambda w: checkpoint_files("manifest.json", w, parents_of(w)),
    output:
        recipe=f"{MERGE}/recipe.json",
        provenance=f"{MERGE}/provenance.json",
    log:
        f"{RUN_LOGS}/merge/{RUN_PATH}.log",
    wildcard_constraints:
        method=of_form("recipe", "curve"),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    params:
        cfg=lambda w: method_settings("merge_weights", w),
    script:
        "../scripts/merge_weights.py"


def selection_inputs(w):
    """Inputs of a job that chooses weights, by name."""
    images = {"watched": ancient(prepared("images.npy", w.target, geometry_of(w.model)))}
    return {**state_inputs(w), **dataset_inputs("target", w.target, geometry_of(w.model)), **images, "recipe": []}


# Score candidates on the select split of the target; the recipe contains their accuracies.
rule select_weights:
    input:
        unpack(selection_inputs),
    output:
        recipe=f"{MERGE}/recipe.json",
        provenance=f"{MERGE}/provenance.json",
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
            "select_weights", w, view=view_of(w.model), batch_size=BATCH_SIZE, compute=COMPUTE
        ),
    script:
        "../scripts/select_weights.py"
