"""Score one run on one suite of datasets."""

from pathlib import Path

from _run import named_inputs, run, warm_start

warm_start()

with run(snakemake, "evaluate", resumes=Path(snakemake.output.rows).name) as out:
    from rib.data.suites import read_suite
    from rib.evaluate import evaluate
    from rib.passes import Job, scorings

    cfg, files, outputs = snakemake.params.cfg, named_inputs(snakemake), dict(snakemake.output.items())
    own = Job(dict(snakemake.wildcards.items()), cfg, files, outputs, snakemake.log[0])
    with scorings(own, snakemake.params.together) as due:
        evaluate(
            model_folder=Path(files["model"]).parent,
            scorings=due,
            datasets=read_suite(Path(files["suite"])),
            apart=dict.fromkeys(cfg["apart"], files["apart"] and Path(files["apart"]).parent),
            splits=dict(zip(cfg["split"], map(Path, files["splits"]), strict=True)),
            **{key: cfg[key] for key in ("images", "batch_size", "compute")},
        )
