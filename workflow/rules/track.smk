# `snakemake track` adds results to DVC for sharing, with one .dvc file per stage and model (or dataset).

TRACKED = [
    "data/raw/*",
    *(f"results/{FAMILY}/{stage}/*" for stage in ("prepare", "models", "text")),
    *(
        f"{RUNS}/{stage}/*"
        for stage in ("split", "finetune", "merge", "evaluate", "evaluate_over_targets", "select", "features")
        + ("fisher", "distances", "export")
    ),
    *(f"{REPORTS}/{part}" for part in ("tables", "figures", "index.provenance.json")),
    *(PAGE, CRATE),
]


use rule status as track with:
    log:
        "logs/track.log",
    conda:
        "../../envs/share.yaml"
    params:
        cfg={"function": "rib.records.track:track", "units": TRACKED, "report": REPORTS},
