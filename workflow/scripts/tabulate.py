"""Write the tables of the function that the rule names, which may also write files, and mark unfinished runs."""

import pkgutil
from pathlib import Path

from _run import arguments, dataset_group, named_inputs, run

with run(snakemake, warm="tables") as out:
    cfg = snakemake.params.cfg
    function = pkgutil.resolve_name(cfg["function"])
    from rib.analysis.fit import mark_tables
    from rib.analysis.writing import write_tables

    given = {}
    if "view" in cfg:
        folders = {path.parts[-3]: path.parent for path in map(Path, snakemake.input.indexes)}
        given["datasets"] = dataset_group(snakemake, folders)
    tables = function(**arguments(function, snakemake, out, **given))
    if tables is not None:
        write_tables(tables, out, **{key: cfg[key] for key in ("conditions",) if key in cfg})
    if fit := out.get("fit") or named_inputs(snakemake).get("fit"):
        mark_tables([path for path in out.values() if path.suffix == ".csv"], fit)
