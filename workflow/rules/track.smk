# `snakemake track` adds results to DVC for sharing, with one .dvc file per stage and model (or
# dataset).

from rib.records.settings import DescribedDataset, TrackSettings

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
    *(
        f"{REPORTS}/{name}"
        for name in ("tables", "figures", "provenance.json", Path(PAGE).name, Path(CRATE).name)
    ),
    *(folder for _, folder in PUBLICATIONS.values() if folder != REPORTS),
    f"{REPORTS}/published",
]

# Datasets of the family whose images may be passed on; each has its description in Croissant format.
DESCRIBED = {
    entry.name: DescribedDataset(
        folder=f"results/{FAMILY}/prepare/{entry.name}",
        label=entry.label,
        family=GRID.family.description,
        licence=entry.licence,
        origin=entry.origin,
        url=entry.redistributable,
    )
    for entry in DATASETS_READ
    if entry.redistributable
}


rule track:
    log:
        "logs/track.log",
    localrule: True
    conda:
        "../../envs/share.yaml"
    params:
        cfg=to_params(TrackSettings(units=TRACKED, report=Path(REPORTS), described=DESCRIBED)),
    script:
        "../scripts/track.py"
