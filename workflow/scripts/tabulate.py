"""Write tables with the function that the rule names, and mark runs whose training is unfinished."""

import pkgutil

from _run import arguments, named_inputs, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    function(**arguments(function, snakemake, out))
    from rib.analysis.fit import mark_tables

    if fit := out.get("fit") or named_inputs(snakemake).get("fit"):
        mark_tables([path for path in out.values() if path.suffix == ".csv"], fit)
