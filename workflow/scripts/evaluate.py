"""Score one run on one suite of datasets."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "evaluate") as out:
    from rib.evaluate import evaluate
    from rib.merge import run_weights

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    evaluate(
        model_folder=Path(files.model).parent,
        weights=run_weights(w.method, files.recipe),
        checkpoints=dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        datasets=dict(zip(cfg["datasets"], (Path(path).parent for path in files.datasets), strict=True)),
        run={"model": w.model, "target": w.target, "method": w.method, "seed": int(w.seed)},
        batch_size=cfg["batch_size"],
        compute=cfg["compute"],
        rows=out["rows"],
        manifest=out["manifest"],
    )
