"""Compare distances between datasets with what fine-tuning did."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "association") as out:
    from rib.analysis.association import write_tables

    cfg, files = snakemake.params.cfg, snakemake.input
    measured = zip(cfg["models"], files.features, files.compression, strict=True)
    write_tables(
        measured={model: [Path(path) for path in paths] for model, *paths in measured},
        accuracy=Path(files.accuracy),
        ri=Path(files.ri),
        conditions=cfg["conditions"],
        outputs={name: out[name] for name in ("distances", "association")},
        **cfg["choices"],
    )
