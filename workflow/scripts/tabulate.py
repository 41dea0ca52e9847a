"""Write tables with the function that the rule names."""

import pkgutil

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    function(**arguments(function, snakemake, out))
