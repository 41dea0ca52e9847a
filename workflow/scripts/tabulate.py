"""Write the tables of the function that the rule names, which may also write files."""

import pkgutil
from pathlib import Path

from _run import arguments, dataset_group, named_inputs, run

with run(snakemake, warm="tables") as out:
    cfg = snakemake.params.cfg
    function = pkgutil.resolve_name(cfg["function"])
    from rib.analysis.writing import read_fit, write_tables

    given = {}
    if "view" in cfg:
        folders = {path.parts[-3]: path.parent for path in map(Path, snakemake.input.indexes)}
        given["datasets"] = dataset_group(snakemake, folders)
    tables = function(**arguments(function, snakemake, out, **given))
    if tables is not None:
        fit = None
        if "fit" in out:
            fit = tables["fit"]
        elif "fit" in named_inputs(snakemake):
            fit = read_fit(snakemake.input.fit)
        last_columns = {"conditions": cfg["conditions"]} if "conditions" in cfg else {}
        write_tables(tables, out, fit, **last_columns)
