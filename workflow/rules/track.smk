# `snakemake track` adds results to DVC for sharing, with one .dvc file per stage and model (or dataset).

TRACKED = [
    "data/raw/*",
    *(f"results/{FAMILY}/{stage}/*" for stage in ("prepare", "models", "text")),
    *(
        f"{RUNS}/{stage}/*"
        for stage in (
            "split",
            "finetune",
            "merge",
            "evaluate",
            "evaluate_over_targets",
            "select",
            "features",
        )
        + ("fisher", "metrics", "export")
    ),
    *(
        f"{REPORTS}/{name}"
        for name in ("tables", "figures", "provenance.json", Path(PAGE).name, Path(CRATE).name)
    ),
    *(folder for _, folder in PUBLICATIONS.values() if folder != REPORTS),
    f"{REPORTS}/published",
]


use rule status as track with:
    log:
        "logs/track.log",
    conda:
        "../../envs/share.yaml"
    params:
        cfg={"function": "rib.records.track:track", "units": TRACKED, "report": REPORTS},
