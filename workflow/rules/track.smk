# `snakemake track` adds results to DVC for sharing, with one .dvc file per stage and model (or
# dataset).

from rib.records.settings import TrackSettings

TRACKED = [
    "data/raw/*",
    *(f"results/{FAMILY}/{stage}/*" for stage in ("prepare", "models", "text")),
    *(
        f"{RUNS}/{stage}/*"
        for stage in (
            "split",
            "labels",
            "finetune",
            "merge",
            "evaluate",
            "evaluate_over_targets",
            "select",
            "features",
        )
        + ("fisher", "metrics", "export")
    ),
    *(f"{REPORTS}/{name}" for name in ("tables", "figures", "provenance.json", Path(PAGE).name)),
    *(folder for _, folder in PUBLICATIONS.values() if folder != REPORTS),
    f"{REPORTS}/published",
]


rule track:
    log:
        "logs/track.log",
    localrule: True
    conda:
        "../../envs/share.yaml"
    params:
        cfg=to_params(TrackSettings(units=TRACKED, report=Path(REPORTS))),
    script:
        "../scripts/track.py"
