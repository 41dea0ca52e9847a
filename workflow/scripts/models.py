"""Convert and check one pretrained model."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "models") as out:
    from rib.models.pretrained import convert

    convert(
        archive=Path(snakemake.input.archive),
        entry=snakemake.params.cfg["entry"],
        weights=out["weights"],
        description=out["description"],
    )
