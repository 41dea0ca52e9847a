"""Compute one run's features on one dataset."""

from _run import network_and_images, run, warm_start

warm_start()

with run(snakemake, "features") as out:
    from rib.features import compute_features

    cfg, w = snakemake.params.cfg, snakemake.wildcards
    compute_features(
        **network_and_images(snakemake),
        what={key: w[key] for key in ("model", "target", "method", "dataset")},
        **{key: cfg[key] for key in ("layers", "limit")},
        **{key: out[key] for key in ("features", "index", "manifest")},
    )
