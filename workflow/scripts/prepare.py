"""Prepare one dataset at one geometry."""

import os

from _run import run

with run(snakemake, resumes="images.journal") as output:
    from _inputs import paths
    from rib.base.params import from_params
    from rib.data.data_settings import PreparationSettings
    from rib.data.prepare import prepare
    from rib.data.variables import CORRUPT_IMAGES

    prepare(
        name=snakemake.wildcards.dataset,
        archives=paths(snakemake.input.archives),
        settings=from_params(PreparationSettings, snakemake.params.cfg),
        corrupt_allowed=int(os.environ.get(CORRUPT_IMAGES, 0)),
        decode_workers=snakemake.threads,
        images=output["images"],
        index=output["index"],
        classes=output["classes"],
        manifest=output["manifest"],
        folders=snakemake.params.folders,
    )
