"""Write accuracies before and after fine-tuning by the number of images pretrained on."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "pretraining_sizes") as out:
    from rib.analysis.sizes import write_pretraining_sizes

    cfg, files = snakemake.params.cfg, snakemake.input
    write_pretraining_sizes(
        mri=Path(files.mri),
        ood=Path(files.ood),
        descriptions=dict(zip(cfg["trained_here"], files.descriptions, strict=True)),
        conditions=cfg["conditions"],
        table=out["table"],
    )
