"""Invert one run's representation of one dataset's images."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "inversions") as out:
    from rib.merge import run_states
    from rib.stir import invert_run

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    invert_run(
        model_folder=Path(files.model).parent,
        states=run_states(w.method, files.recipe),
        checkpoints=dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        dataset_folder=Path(files.dataset).parent,
        apart=Path(files.apart).parent if files.apart else None,
        what={key: w[key] for key in ("model", "target", "method", "dataset")},
        **{key: cfg[key] for key in ("images", "shares", "settings", "batch_size", "compute")},
        **{key: out[key] for key in ("inverted", "index", "manifest")},
    )
