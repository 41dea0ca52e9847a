"""Pass one dataset's images through one run's network, with the function that the rule names."""

import pkgutil

from _run import arguments, run, run_on_dataset, warm_start

warm_start()

with run(snakemake) as out:
    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    function(**arguments(function, snakemake, out, source=run_on_dataset(snakemake)))
