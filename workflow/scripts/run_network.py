"""Pass one dataset's images through one run's network, with the function that the rule names."""

import pkgutil

from _run import arguments, dataset_files, run, run_weights, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.run_on_dataset import RunOnDataset

    files, function = snakemake.input, pkgutil.resolve_name(snakemake.params.cfg["function"])
    name = snakemake.wildcards.get("dataset", snakemake.wildcards.target)
    dataset = dataset_files(name, files.dataset, files.proxy, files.split)
    # Snapshots of epochs are separate inputs.
    weights = {"states": [], "checkpoints": {}} if hasattr(files, "snapshots") else run_weights(snakemake)
    source = RunOnDataset(**arguments(RunOnDataset, snakemake, {}, dataset=dataset, **weights))
    function(**arguments(function, snakemake, out, source=source))
