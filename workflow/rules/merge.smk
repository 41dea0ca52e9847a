# Averages of weights are recipes over checkpoints, computed when they are loaded.


rule merge_weights:
    input:
        manifests=checkpoints("manifest.json"),
    output:
        recipe=f"{RUNS}/merge/{RUN}/recipe.json",
        provenance=f"{RUNS}/merge/{RUN}/provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/merge/{RUN}.log",
    wildcard_constraints:
        method=of_kind("merge"),
    conda:
        "../../envs/fetch.yaml"
    resources:
        mem_mb=500,
        runtime=10,
    params:
        cfg=lambda w: method_job("merge", w.method, parents=list(CATALOG.methods[w.method].parents)),
    script:
        "../scripts/merge.py"
