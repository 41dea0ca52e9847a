"""Fine-tune one model on one target with one method."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "finetune") as out:
    from rib.finetune import finetune

    cfg = snakemake.params.cfg
    finetune(
        model_folder=Path(snakemake.input.model).parent,
        target_folder=Path(snakemake.input.target).parent,
        what={key: snakemake.wildcards[key] for key in ("model", "target", "method")},
        seed=int(snakemake.wildcards.seed),
        **{key: cfg[key] for key in ("mechanism", "settings", "training", "compute")},
        **{key: out[key] for key in ("checkpoint", "history", "manifest")},
    )
