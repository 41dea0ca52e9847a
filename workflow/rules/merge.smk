# Merges: what they need, and those that are selected on held-out images. How the networks of other
# merges are made is computed by the jobs that use them (evaluate.smk).

from rib.config.settings import constant
from rib.evaluation.settings import SelectionSettings

FEWEST_PARENTS = 1  # of a merge whose algorithm doesn't say


def digest_with_merge(script, method):
    """Digest of the code of a script that makes a method's network, which may be merged."""
    if method == PRETRAINED or GRID.methods[method].form not in MERGES:
        return digest(script)
    return digest(script, CATALOG.algorithm_file(GRID.methods[method].algorithm))


def refuse_parents():
    """Raise a UserError if a merge can't be made of its parents, before anything is trained.

    It has too few of them, or one trains a padding prompt, which can't be averaged.
    """
    names_of_merges = dict.fromkeys(run.method for run in PATHS.merged_runs)
    for name in names_of_merges:
        method = GRID.methods[name]
        number = len(PATHS.parents[name])
        algorithm = CATALOG.algorithm_file(method.algorithm)
        fewest = constant(algorithm, "FEWEST_PARENTS", FEWEST_PARENTS)
        if number < fewest:
            raise UserError(
                f"method '{name}' merges at least {fewest} parents, but has {number}; add others."
            )
        for parent in method.parents:
            if GRID.methods[parent].algorithm == "visual_prompt":
                raise UserError(
                    f"method '{name}': its parent '{parent}' trains a padding prompt; "
                    "choose another."
                )


refuse_parents()


def selection_inputs(wildcards):
    """Inputs of a job that chooses weights, by name."""
    return {
        **network_files(run_of(wildcards)),
        **dataset_inputs("target", wildcards.target, PATHS.geometry_of(wildcards.model)),
        "dataset_files": ancient(
            PATHS.prepared("images.npy", wildcards.target, PATHS.geometry_of(wildcards.model))
        ),
        "selection": [],  # which this job writes
    }


def selection_settings(wildcards):
    """Settings of a job that chooses weights."""
    method = GRID.methods[wildcards.method]
    algorithm = CATALOG.algorithm_file(method.algorithm)
    settings = SelectionSettings(
        algorithm=local(algorithm),
        settings=method.settings,
        parents=GRID.parents_of(wildcards.method),
        view=view_of(wildcards.model, wildcards.target),
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
        compute=COMPUTE,
        code=digest("select_weights", algorithm),
    )
    return to_params(settings)


# Score candidates on the select split of the target; the file has their accuracies.
rule select_weights:
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
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.target], attempt
        ),
        runtime=60,
    params:
        cfg=selection_settings,
    script:
        "../scripts/select_weights.py"
