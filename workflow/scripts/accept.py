"""Accept results after a change of code that does not change them."""

import os
import sys
from functools import partial
from pathlib import Path

from _run import run

with run(snakemake):
    sys.path.insert(0, str(Path(snakemake.scriptdir).parent / "rules"))
    from code_changes import made_again
    from snakemake_internals.records import SnakemakeRecords

    from rib.base.settings import from_params
    from rib.records.accept import SAMPLE, USUAL, accept, sample_size
    from rib.records.settings import AcceptSettings

    settings = from_params(AcceptSettings, snakemake.params.cfg)
    mirror = settings.mirror
    accept(
        changes={path: change.model_dump() for path, change in settings.changes.items()},
        number=sample_size(os.environ.get(SAMPLE, str(USUAL))),
        rerun=partial(
            made_again,
            catalog_folders=mirror.catalog_folders,
            output_folders=mirror.output_folders,
            config=mirror.config,
            options=mirror.options,
        ),
        notify=SnakemakeRecords().accept,
    )
