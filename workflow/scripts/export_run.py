"""Export one run, with the function that the rule names."""

import pkgutil

from _run import arguments, run

with run(snakemake, warm="networks") as out:
    from _inputs import run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.settings import NetworkSettings

    cfg = snakemake.params.cfg
    function = pkgutil.resolve_name(cfg["function"])
    # The other settings are arguments of the function.
    settings = from_params(
        NetworkSettings, {name: cfg[name] for name in NetworkSettings.model_fields}
    )
    exported_run = run_of(snakemake.wildcards)
    source = run_on_dataset(
        snakemake.input,
        run=exported_run,
        dataset=dataset_of(snakemake.input, exported_run.target, decode_workers=snakemake.threads),
        settings=settings,
    )
    function(**arguments(function, snakemake, out, source=source))
