"""Choose one merge on held-out images and write its recipe."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "selection") as out:
    from rib.selection import select

    cfg, files = snakemake.params.cfg, snakemake.input
    select(
        model_folder=Path(files.model).parent,
        target_folder=Path(files.target).parent,
        target=snakemake.wildcards.target,
        apart=Path(files.apart).parent if files.apart else None,
        split=Path(files.split),
        checkpoints=[Path(path) for path in files.checkpoints],
        manifests=[Path(path) for path in files.manifests],
        **{key: cfg[key] for key in ("mechanism", "settings", "parents", "images", "batch_size", "compute")},
        recipe=out["recipe"],
    )
