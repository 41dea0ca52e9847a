"""Write one dataset at one geometry."""

import os
from pathlib import Path

from _run import run

with run(snakemake, "prepare", resumes="images.journal") as out:
    from rib.classes import ClassSpace
    from rib.data.prepare import prepare
    from rib.geometry import Geometry
    from rib.runs import CORRUPT_ALLOWED

    cfg = snakemake.params.cfg
    prepare(
        archives=[Path(path) for path in snakemake.input.archives],
        digests=cfg["digests"],
        dataset=snakemake.wildcards.dataset,
        layout=cfg["layout"],
        arguments=cfg["arguments"],
        space=ClassSpace.from_json(cfg["space"]),
        geometry=Geometry(**cfg["geometry"]) if cfg["geometry"] else None,
        **{key: cfg[key] for key in ("storage", "expected", "about")},
        corrupt_allowed=int(os.environ.get(CORRUPT_ALLOWED, 0)),
        workers=snakemake.threads,
        **{name: out[name] for name in ("images", "index", "classes", "manifest")},
    )
