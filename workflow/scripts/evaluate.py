"""Score one run on one suite of datasets."""

from pathlib import Path

from _run import run, warm_start

warm_start()

with run(snakemake, "evaluate") as out:
    from rib.data.suites import read_suite
    from rib.evaluate import evaluate
    from rib.merge import run_states

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    evaluate(
        model_folder=Path(files.model).parent,
        states=run_states(w.method, files.recipe),
        checkpoints=dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        datasets=read_suite(Path(files.suite)),
        apart=dict.fromkeys(cfg["apart"], files.apart and Path(files.apart).parent),
        run={**{key: w[key] for key in ("model", "target", "method", "size")}, "seed": int(w.seed)},
        **{key: cfg[key] for key in ("images", "shares", "batch_size", "compute")},
        rows=out["rows"],
        manifest=out["manifest"],
    )
