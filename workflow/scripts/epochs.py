"""Compute one run's features on one dataset after each epoch of its fine-tuning."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "epochs") as out:
    from rib.features import compute_epoch_features

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    compute_epoch_features(
        model_folder=Path(files.model).parent,
        snapshots=[Path(path) for path in files.snapshots],
        dataset_folder=Path(files.dataset).parent,
        apart=Path(files.apart).parent if files.apart else None,
        split=Path(files.split) if files.split else None,
        what={key: w[key] for key in ("model", "target", "method", "dataset")},
        **{key: cfg[key] for key in ("images", "limit", "batch_size", "compute")},
        **{key: out[key] for key in ("features", "index", "manifest")},
    )
