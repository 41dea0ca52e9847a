# Each pretrained model once as safetensors under its library's names, with a head for the family's classes: the
# published one, one made from class names, or one fitted on the family's reference dataset.


include: "pretrain.smk"


rule convert_model:
    input:
        manifest=lambda w: f"{archives(CATALOG.models[w.model])[0]}.manifest.json",
        archive=lambda w: ancient(archives(CATALOG.models[w.model])[0]),
        reference=fitted_on,
    output:
        weights=f"{MODEL}/weights.safetensors",
        description=f"{MODEL}/model.json",
        manifest=f"{MODEL}/manifest.json",
        provenance=f"{MODEL}/provenance.json",
    log:
        f"{LOGS}/models/{{model}}.log",
    wildcard_constraints:
        model="|".join(re.escape(name) for name in CATALOG.models if name not in TRAINED_HERE) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=lambda w: GPU if fitted_on(w) else 0,
        mem_mb=lambda w: 32000 if fitted_on(w) and GRID.reference.dataset.storage == "encoded" else 8000,
        runtime=120,
    params:
        cfg=conversion,
    script:
        "../scripts/models.py"
