# Averages of weights are recipes over checkpoints, computed when they are loaded.


rule merge_weights:
    input:
        manifests=lambda w: checkpoints("manifest.json", w, checkpointed(w)),
    output:
        recipe=f"{RUNS}/merge/{RUN}/recipe.json",
        provenance=f"{RUNS}/merge/{RUN}/provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/merge/{RUN}.log",
    wildcard_constraints:
        method=of_form("recipe", "curve"),
    localrule: True
    conda:
        "../../envs/fetch.yaml"
    resources:
        mem_mb=500,
        runtime=10,
    params:
        cfg=lambda w: method_job("merge", w.method),
    script:
        "../scripts/merge.py"


# Where weights are chosen on the select split of the target, candidates are scored; the recipe has their accuracies.
rule select_weights:
    input:
        unpack(selection_inputs),
    output:
        recipe=f"{RUNS}/merge/{RUN}/recipe.json",
        provenance=f"{RUNS}/merge/{RUN}/provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/merge/{RUN}.log",
    wildcard_constraints:
        method=of_form("select"),
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: method_job(
            "selection",
            w.method,
            images=images(w.model),
            batch_size=CONFIG["compute"]["evaluation_batch_size"],
            compute=COMPUTE,
        ),
    script:
        "../scripts/selection.py"
