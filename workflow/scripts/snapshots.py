"""Fine-tune one model on one target with one method, keeping the weights after each epoch."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "snapshots", resumes="state.safetensors") as out:
    from rib.finetune import finetune

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    snapshots = [path for name, path in out.items() if name.startswith("epoch")]
    finetune(
        model_folder=Path(files.model).parent,
        target_folder=Path(files.target).parent,
        reference_folder=Path(files.reference).parent if files.reference else None,
        apart=Path(files.apart).parent if files.apart else None,
        start=dict(zip(cfg["parents"], map(Path, files.start_weights), strict=True)),
        what={key: w[key] for key in ("model", "target", "method")},
        **{"size": w.size, "seed": int(w.seed), "snapshots": snapshots, "checkpoint": snapshots[-1]},
        **{key: cfg[key] for key in ("mechanism", "settings", "training", "images", "shares", "compute")},
        saved=snapshots[-1].with_name("state.safetensors"),
        rescue=Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
        **{key: out[key] for key in ("history", "manifest")},
    )
