"""Write tables with the function that the rule names, and mark runs whose training is unfinished."""

import pkgutil
from pathlib import Path

from _run import arguments, dataset_group, named_inputs, run

with run(snakemake, warm="tables") as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    from rib.analysis.fit import mark_tables

    given = {}
    if "view" in snakemake.params.cfg:
        folders = {path.parts[-3]: path.parent for path in map(Path, snakemake.input.indexes)}
        given["datasets"] = dataset_group(snakemake, folders)
    function(**arguments(function, snakemake, out, **given))
    if fit := out.get("fit") or named_inputs(snakemake).get("fit"):
        mark_tables([path for path in out.values() if path.suffix == ".csv"], fit)
