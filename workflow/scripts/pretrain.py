"""Train one model from random weights."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "pretrain", resumes="state.safetensors") as out:
    from rib.pretrain import pretrain

    cfg, files = snakemake.params.cfg, snakemake.input
    pretrain(
        dataset_folder=Path(files.dataset).parent,
        test_folder=Path(files.test).parent,
        **{key: cfg[key] for key in ("entry", "outputs", "images", "compute")},
        saved=out["weights"].with_name("state.safetensors"),
        rescue=Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
        **{key: out[key] for key in ("weights", "description", "history")},
    )
