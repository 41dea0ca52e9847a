"""Prepare one dataset at one geometry."""

import os

from _run import arguments, run

with run(snakemake, resumes="images.journal") as out:
    from rib.config.label_space import LabelSpace
    from rib.data.images import DatasetSource
    from rib.data.prepare import prepare
    from rib.data.variables import CORRUPT_IMAGES

    named = {
        "name": snakemake.wildcards.dataset,
        "space": LabelSpace.from_json(snakemake.params.cfg["space"]),
    }
    dataset = DatasetSource(**arguments(DatasetSource, snakemake, {}, **named))
    limits = {
        "corrupt_allowed": int(os.environ.get(CORRUPT_IMAGES, 0)),
        "workers": snakemake.threads,
    }
    prepare(**arguments(prepare, snakemake, out, dataset=dataset, **limits))
