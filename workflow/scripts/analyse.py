"""Make the tables and other files of an analysis."""

from _run import run

with run(snakemake) as output:
    from rib.statistics.inputs import Inputs
    from rib.statistics.writing import make_tables

    cfg = snakemake.params.cfg
    files = {name: snakemake.input[name] for name in cfg["inputs"]}
    make_tables(
        cfg["analysis"],
        Inputs(files, cfg["params"]),
        output,
        cfg["conditions"],
        cfg["without_fit"],
    )
