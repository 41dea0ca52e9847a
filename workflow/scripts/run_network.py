"""Export one run, with the function that the rule names."""

import pkgutil

from _run import arguments, dataset_files, run, run_weights

with run(snakemake, warm="networks") as out:
    from rib.evaluation.run_on_dataset import RunOnDataset

    function = pkgutil.resolve_name(snakemake.params.cfg["function"])
    dataset = dataset_files(snakemake, "dataset")
    weights = run_weights(snakemake)
    source = RunOnDataset(**arguments(RunOnDataset, snakemake, {}, dataset=dataset, **weights))
    function(**arguments(function, snakemake, out, source=source))
