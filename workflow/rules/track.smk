# `snakemake track` adds results to DVC for sharing, with one .dvc file per stage and model (or dataset).

TRACKED = [
    "data/raw/*",
    f"results/{FAMILY}/prepare/*",
    f"results/{FAMILY}/models/*",
    *(f"{RUNS}/{stage}/*" for stage in ("split", "finetune", "merge", "evaluate", "select", "features", "distances")),
    *(f"{REPORTS}/{part}" for part in ("tables", "figures", "index.html", "index.provenance.json")),
]


rule track:
    log:
        "logs/track.log",
    localrule: True
    conda:
        "../../envs/share.yaml"
    params:
        cfg={"units": TRACKED, "report": REPORTS},
    script:
        "../scripts/track.py"
