# Shared invariances of fine-tuned and pretrained networks: STIR, by representation inversion.

STIR = f"{METRICS}/tables/stir.csv"
INVERTED = f"{RUNS}/inversions/{RUN_PATH}/{{dataset}}"
CROSSED = f"{RUNS}/stir/{RUN_PATH}/{{dataset}}"
# Each run is compared on its target.
CROSSED_RUNS = [{**vars(run), "dataset": run.target} for run in COMPARED]

REGISTRY.figure("stir", question="why", inputs={"stir": STIR}, settings=COMPARED_SETTINGS)
REGISTRY.analysis("stir", tables={"stir": STIR}, figures=["stir"], optional=True)


use rule compute_features as invert_representation with:
    output:
        **job_files(INVERTED, inverted="safetensors", index="index.parquet"),
    log:
        f"{RUN_LOGS}/inversions/{RUN_PATH}/{{dataset}}.log",
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=720,
    params:
        cfg=lambda w: network_settings(
            "inversion:invert_run", w, parents=PARENTS[w.method], settings=CONFIG["stir"]
        ),


use rule compute_features as cross_inversions with:
    input:
        unpack(network_inputs),
        before=lambda w: f"{INVERTED}.manifest.json".format(
            **{**w, **vars(PRETRAINED_RUNS[w.model])}
        ),
        inverted_before=lambda w: ancient(
            f"{INVERTED}.safetensors".format(**{**w, **vars(PRETRAINED_RUNS[w.model])})
        ),
        after=f"{INVERTED}.manifest.json",
        inverted_after=ancient(f"{INVERTED}.safetensors"),
    output:
        **job_files(CROSSED, features="safetensors"),
    log:
        f"{RUN_LOGS}/stir/{RUN_PATH}/{{dataset}}.log",
    wildcard_constraints:
        method=ONE_STATE,
    params:
        cfg=lambda w: network_settings(
            "inversion:cross_features", w, parents=PARENTS[w.method], settings=CONFIG["stir"]
        ),


use rule compute_metrics as compute_stir with:
    input:
        manifests=[f"{CROSSED}.manifest.json".format(**run) for run in CROSSED_RUNS],
        features=ancient([f"{CROSSED}.safetensors".format(**run) for run in CROSSED_RUNS]),
        indexes=ancient([f"{INVERTED}.index.parquet".format(**run) for run in CROSSED_RUNS]),
        fit=TABLES["fit"],
    output:
        **table_files("stir", table=STIR),
    log:
        f"{LOGS}/stir.log",
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cfg=tabulation(
            "stir:stir_table",
            **{key: CONFIG["stir"][key] for key in ("layer", "steps")},
            **STATISTICS,
        ),
