"""Compute one run's features on one dataset."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "features") as out:
    from rib.features import compute_features
    from rib.merge import run_states

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    compute_features(
        model_folder=Path(files.model).parent,
        states=run_states(w.method, files.recipe),
        checkpoints=dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        dataset_folder=Path(files.dataset).parent,
        apart=Path(files.apart).parent if files.apart else None,
        what={key: w[key] for key in ("model", "target", "method", "dataset")},
        **{key: cfg[key] for key in ("images", "shares", "layers", "limit", "batch_size", "compute")},
        **{key: out[key] for key in ("features", "index", "manifest")},
    )
