"""Evaluate one run on one evaluation group."""

from pathlib import Path

from _run import arguments, checkpoints, dataset_group, run, states, warm_start

warm_start()

with run(snakemake) as out:
    from rib.data.groups import read_group
    from rib.evaluation.evaluate import evaluate

    folders = read_group(Path(snakemake.input.evaluation_group))
    shown = {
        "datasets": dataset_group(snakemake, folders),
        "states": states(snakemake),
        "checkpoints": checkpoints(snakemake),
    }
    evaluate(**arguments(evaluate, snakemake, out, **shown))
