# Which invariances fine-tuned and pretrained networks share: STIR, by representation inversion.

STIR = f"{REPORTS}/tables/stir.csv"
INVERTED = f"{RUNS}/inversions/{RUN}/{{dataset}}"
CROSSED = f"{RUNS}/stir/{RUN}/{{dataset}}"
# On the images that a run was fine-tuned on.
CROSSED_RUNS = [{**vars(run), "dataset": run.target} for run in COMPARED]

analysis("stir", tables={"stir": STIR}, figures={"stir": ({"stir": STIR}, COMPARED_LOOK)}, optional=True)


rule invert_representation:
    input:
        unpack(feature_inputs),
    output:
        inverted=f"{INVERTED}.safetensors",
        index=f"{INVERTED}.index.parquet",
        manifest=f"{INVERTED}.manifest.json",
        provenance=f"{INVERTED}.provenance.json",
    log:
        f"{LOGS}/{CONFIG['protocol']}/inversions/{RUN}/{{dataset}}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{of_form('finetune', 'recipe', 'select')}",
    conda:
        "../../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=720,
    params:
        cfg=lambda w: {
            "parents": checkpointed(w),
            "images": images(w.model),
            "settings": CONFIG["stir"],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("inversions"),
        },
    script:
        "../../scripts/inversions.py"


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
        f"{LOGS}/{CONFIG['protocol']}/stir/{RUN}/{{dataset}}.log",
    wildcard_constraints:
        method=of_form("finetune", "recipe", "select"),
    conda:
        "../../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=60,
    params:
        cfg=lambda w: {
            "parents": checkpointed(w),
            "images": images(w.model),
            "settings": CONFIG["stir"],
            "batch_size": CONFIG["compute"]["evaluation_batch_size"],
            "compute": COMPUTE,
            "code": digest("stir"),
        },
    script:
        "../../scripts/stir.py"


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
            "conditions": "; ".join(GRID.conditions()),
            "confidence": CONFIDENCE,
            "code": digest("stir_table"),
        },
    script:
        "../../scripts/stir_table.py"


rule stir:
    input:
        STIR,
        figure_files(["stir"]),
