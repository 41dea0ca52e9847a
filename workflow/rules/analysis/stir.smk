# Shared invariances of fine-tuned and pretrained networks: STIR, by representation inversion.

STIR = f"{REPORTS}/tables/stir.csv"
INVERTED = f"{RUNS}/inversions/{RUN_PATH}/{{dataset}}"
CROSSED = f"{RUNS}/stir/{RUN_PATH}/{{dataset}}"
# Each run is compared on its target.
CROSSED_RUNS = [{**vars(run), "dataset": run.target} for run in COMPARED]

REGISTRY.figure("stir", inputs={"stir": STIR}, settings=COMPARED_SETTINGS)
REGISTRY.analysis("stir", tables={"stir": STIR}, figures=["stir"], optional=True)


rule invert_representation:
    input:
        unpack(feature_inputs),
    output:
        inverted=f"{INVERTED}.safetensors",
        index=f"{INVERTED}.index.parquet",
        manifest=f"{INVERTED}.manifest.json",
        provenance=f"{INVERTED}.provenance.json",
    log:
        f"{RUN_LOGS}/inversions/{RUN_PATH}/{{dataset}}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{ONE_STATE}",
    conda:
        "../../../envs/torch.yaml"
    threads: lambda w: threads_for([w.dataset])
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=720,
    params:
        cfg=lambda w: network_settings("invert_representation", w, parents=parents_of(w), settings=CONFIG["stir"]),
    script:
        "../../scripts/invert_representation.py"


rule cross_inversions:
    input:
        unpack(feature_inputs),
        before=lambda w: f"{INVERTED}.manifest.json".format(**{**w, **vars(PRETRAINED_RUNS[w.model])}),
        inverted_before=lambda w: ancient(f"{INVERTED}.safetensors".format(**{**w, **vars(PRETRAINED_RUNS[w.model])})),
        after=f"{INVERTED}.manifest.json",
        inverted_after=ancient(f"{INVERTED}.safetensors"),
    output:
        features=f"{CROSSED}.safetensors",
        manifest=f"{CROSSED}.manifest.json",
        provenance=f"{CROSSED}.provenance.json",
    log:
        f"{RUN_LOGS}/stir/{RUN_PATH}/{{dataset}}.log",
    wildcard_constraints:
        method=ONE_STATE,
    conda:
        "../../../envs/torch.yaml"
    threads: lambda w: threads_for([w.dataset])
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: network_settings("cross_inversions", w, parents=parents_of(w), settings=CONFIG["stir"]),
    script:
        "../../scripts/cross_inversions.py"


rule compute_stir:
    input:
        manifests=[f"{CROSSED}.manifest.json".format(**run) for run in CROSSED_RUNS],
        features=ancient([f"{CROSSED}.safetensors".format(**run) for run in CROSSED_RUNS]),
        indexes=ancient([f"{INVERTED}.index.parquet".format(**run) for run in CROSSED_RUNS]),
    output:
        table=STIR,
        provenance=f"{REPORTS}/tables/stir.provenance.json",
    log:
        f"{LOGS}/stir.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cfg={
            **{key: CONFIG["stir"][key] for key in ("layer", "steps")},
            "conditions": CONDITIONS,
            "confidence": CONFIDENCE,
            "code": digest("compute_stir"),
        },
    script:
        "../../scripts/compute_stir.py"


rule stir:
    input:
        STIR,
        figure_files("stir"),
