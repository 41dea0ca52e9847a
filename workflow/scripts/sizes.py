"""Write robustness improvement by the number of training images."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "sizes") as out:
    from rib.analysis.sizes import write_sizes

    cfg, files = snakemake.params.cfg, snakemake.input
    write_sizes(
        ri=Path(files.ri),
        mri=Path(files.mri),
        finetunings=[{**run, "manifest": path} for run, path in zip(cfg["runs"], files.manifests, strict=True)],
        descriptions=dict(zip(cfg["trained_here"], files.descriptions, strict=True)),
        **{key: cfg[key] for key in ("epochs", "conditions")},
        table=out["table"],
    )
