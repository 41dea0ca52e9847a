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

    from rib.records.accept import SAMPLE, USUAL, accept, sample_size

    cfg, number = snakemake.params.cfg, sample_size(os.environ.get(SAMPLE, str(USUAL)))
    accept(cfg["changes"], number, partial(made_again, **cfg["mirror"]), SnakemakeRecords().accept)
