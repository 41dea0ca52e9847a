"""Show each of two networks the other's inversions."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "stir") as out:
    from rib.merge import run_states
    from rib.stir import cross_features

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    cross_features(
        model_folder=Path(files.model).parent,
        states=run_states(w.method, files.recipe),
        checkpoints=dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        dataset_folder=Path(files.dataset).parent,
        apart=Path(files.apart).parent if files.apart else None,
        dataset=w.dataset,
        **{name: Path(files[name]) for name in ("inverted_before", "inverted_after")},
        **{key: cfg[key] for key in ("images", "shares", "settings", "batch_size", "compute")},
        features=out["features"],
    )
