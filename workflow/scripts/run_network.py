"""Pass one dataset's images through one run's network, with the function that the rule names."""

import pkgutil

from _run import arguments, dataset_files, run, run_weights

with run(snakemake, warm="networks") as out:
    from rib.evaluation.run_on_dataset import RunOnDataset

    function, dataset = (
        pkgutil.resolve_name(snakemake.params.cfg["function"]),
        dataset_files(snakemake, "dataset"),
    )
    # Snapshots of epochs are separate inputs.
    weights = (
        {"states": [], "checkpoints": {}}
        if hasattr(snakemake.input, "snapshots")
        else run_weights(snakemake)
    )
    source = RunOnDataset(**arguments(RunOnDataset, snakemake, {}, dataset=dataset, **weights))
    function(**arguments(function, snakemake, out, source=source))
