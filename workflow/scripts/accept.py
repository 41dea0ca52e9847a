"""Keep results after a change of code that changes no bytes."""

import os
import sys
from pathlib import Path

from _run import run

with run(snakemake, "accept"):
    sys.path.insert(0, str(Path(snakemake.scriptdir).parent / "rules"))
    from adopt import SnakemakeRecords
    from rehearse import mirrored, rehearse

    from rib.accept import SAMPLE, USUAL, accept, sample_size

    cfg, records = snakemake.params.cfg, SnakemakeRecords()
    number = sample_size(os.environ.get(SAMPLE, str(USUAL)))
    with mirrored(cfg["code"], cfg["made"], cfg["config"]) as folder:
        accept(
            cfg["changes"],
            number,
            lambda by_rule: rehearse(folder, by_rule, cfg["cores"], cfg["gpus"], snakemake.log[0]),
            records.accept,
        )
