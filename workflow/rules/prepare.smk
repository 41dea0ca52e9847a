# Each image decoded and resized, or drawn, once per geometry.


rule prepare:
    input:
        manifests=lambda w: [f"{path}.manifest.json" for path in archives(CATALOG.datasets[w.dataset])],
        archives=lambda w: ancient(archives(CATALOG.datasets[w.dataset])),
    output:
        images=f"{PREPARED}/images.npy",
        index=f"{PREPARED}/index.parquet",
        classes=f"{PREPARED}/classes.json",
        manifest=f"{PREPARED}/manifest.json",
        provenance=f"{PREPARED}/provenance.json",
    log:
        f"{LOGS}/prepare/{{dataset}}/{{geometry}}.log",
    conda:
        "../../envs/images.yaml"
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        cfg=preparation,
    script:
        "../scripts/prepare.py"
