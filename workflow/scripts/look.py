"""Call the function that the rule names."""

import pkgutil

from _run import arguments, run

with run(snakemake) as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    function(**arguments(function, snakemake, out))
