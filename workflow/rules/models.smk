# Convert each pretrained model to safetensors with its library's parameter names and a head for the family's classes:
# the published head, one made from class names, or one fitted on the family's reference dataset.

TRAINED_HERE = [name for name, model in CATALOG.models.items() if model.pretrain]


def fitted_on(w):
    """The reference dataset on which a model's head is fitted; empty for other heads."""
    fitted = GRID.head(w.model) == "fitted"
    return (
        prepared("manifest.json", GRID.reference.dataset.name, GEOMETRY_OF[w.model])
        if fitted
        else []
    )


rule convert_model:
    input:
        manifests=lambda w: [
            f"{file}.manifest.json" for file in archive_files(CATALOG.models[w.model])
        ],
        archives=lambda w: ancient(archive_files(CATALOG.models[w.model])),
        reference=fitted_on,
    output:
        **job_files(MODEL, inside=True, weights="weights.safetensors", description="model.json"),
    log:
        f"{LOGS}/models/{{model}}.log",
    wildcard_constraints:
        model="|".join(re.escape(name) for name in CATALOG.models if name not in TRAINED_HERE)
        or "(?!)",
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=lambda w: GPU if fitted_on(w) else 0,
        mem_mb=lambda w: (
            32000 if fitted_on(w) and GRID.reference.dataset.storage == "encoded" else 8000
        ),
        runtime=120,
    params:
        cfg=lambda w: {**GRID.conversion(w.model), "code": digest("convert_model")},
    script:
        "../scripts/convert_model.py"
