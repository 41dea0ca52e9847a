"""Keep results after a change of code that changes no bytes."""

import os
import sys
from functools import partial
from pathlib import Path

from _run import run

with run(snakemake, "accept"):
    sys.path.insert(0, str(Path(snakemake.scriptdir).parent / "rules"))
    from adopt import SnakemakeRecords
    from rehearse import rehearsed

    from rib.accept import SAMPLE, USUAL, accept, sample_size

    cfg = snakemake.params.cfg
    accept(
        cfg["changes"],
        sample_size(os.environ.get(SAMPLE, str(USUAL))),
        partial(rehearsed, **cfg["mirror"], log_file=snakemake.log[0]),
        SnakemakeRecords().accept,
    )
