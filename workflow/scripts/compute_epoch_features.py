"""Compute one run's features on one dataset after each epoch of its fine-tuning."""

from _run import arguments, run, run_on_dataset, warm_start

warm_start()

with run(snakemake) as out:
    from rib.evaluation.features import compute_epoch_features

    compute_epoch_features(
        **arguments(compute_epoch_features, snakemake, out, source=run_on_dataset(snakemake, states=[], checkpoints={}))
    )
