# Each pretrained model once as safetensors under its library's names, checked against the published weights.


rule convert_model:
    input:
        manifest=lambda w: f"{archives(CATALOG.models[w.model])[0]}.manifest.json",
        archive=lambda w: ancient(archives(CATALOG.models[w.model])[0]),
    output:
        weights=f"{MODEL}/weights.safetensors",
        description=f"{MODEL}/model.json",
        manifest=f"{MODEL}/manifest.json",
        provenance=f"{MODEL}/provenance.json",
    log:
        f"{LOGS}/models/{{model}}.log",
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        cfg=conversion,
    script:
        "../scripts/models.py"
