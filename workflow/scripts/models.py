"""Convert and check one pretrained model."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "models") as out:
    from rib.models.pretrained import convert

    cfg, files = snakemake.params.cfg, snakemake.input

    convert(
        archive=Path(files.archive),
        reference_folder=Path(files.reference).parent if files.reference else None,
        **{key: cfg[key] for key in ("entry", "head", "outputs", "names", "images", "compute")},
        weights=out["weights"],
        description=out["description"],
    )
