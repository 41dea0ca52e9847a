"""Call the function that the rule names; for rules that make no files."""

import pkgutil

from _run import arguments, run

with run(snakemake) as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    function(**arguments(function, snakemake, out))
