"""Show each of two networks the other's inversions."""

from pathlib import Path

from _run import network_and_images, run, warm_start

warm_start()

with run(snakemake, "stir") as out:
    from rib.stir import cross_features

    cross_features(
        **network_and_images(snakemake),
        dataset=snakemake.wildcards.dataset,
        **{name: Path(snakemake.input[name]) for name in ("inverted_before", "inverted_after")},
        settings=snakemake.params.cfg["settings"],
        features=out["features"],
    )
