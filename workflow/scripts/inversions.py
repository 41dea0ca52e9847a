"""Invert one run's representation of one dataset's images."""

from _run import network_and_images, run, warm_start

warm_start()

with run(snakemake, "inversions") as out:
    from rib.stir import invert_run

    w = snakemake.wildcards
    invert_run(
        **network_and_images(snakemake),
        what={key: w[key] for key in ("model", "target", "method", "dataset")},
        settings=snakemake.params.cfg["settings"],
        **{key: out[key] for key in ("inverted", "index", "manifest")},
    )
