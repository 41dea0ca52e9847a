# One run scored on one suite of datasets: a row per image, from which every number derives.


rule evaluate_run:
    input:
        unpack(evaluation_inputs),
    output:
        rows=f"{RUNS}/evaluate/{RUN}/{{suite}}.parquet",
        manifest=f"{RUNS}/evaluate/{RUN}/{{suite}}.manifest.json",
        provenance=f"{RUNS}/evaluate/{RUN}/{{suite}}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/evaluate/{RUN}/{{suite}}.log",
    group:
        shared_job
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        # of evaluations that share a job of a cluster, one at a time
        turn=1,
        # a curve holds a network per alpha
        mem_mb=lambda w: (16000 if w.method in CURVES else memory(SUITES[w.suite], 4000)),
        runtime=lambda w: 720 if LARGE_SETS.intersection(SUITES[w.suite]) else 120,
    params:
        cfg=lambda w: {
            "parents": checkpointed(w),
            "images": images(w.model),
            "apart": [name for name in SUITES[w.suite] if GRID.kept_apart(name)],
            "split": SUITES[w.suite] if GRID.shares else [],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("evaluate"),
        },
        # No setting of the result (as it takes `input`, Snakemake doesn't compare it): who else may use decoded photos.
        together=lambda w, input: shared_passes(w.model) if LARGE_SETS.intersection(SUITES[w.suite]) else None,
    script:
        "../scripts/evaluate.py"
