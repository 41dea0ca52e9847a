"""List a part of a dataset as an evaluation group, after a check of the dataset's parts."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.data.dataset_part import PartSettings
    from rib.data.parts import write_part

    settings = from_params(PartSettings, snakemake.params.cfg)
    write_part(
        dataset=settings.dataset,
        part=settings.part,
        other_levels=settings.other_levels,
        dataset_manifest=Path(snakemake.input.manifest),
        index=Path(snakemake.input.index),
        manifest=output["manifest"],
    )
