"""Export one run in its library's format, with a model card."""

from pathlib import Path

from _run import run

with run(snakemake, warm="networks") as output:
    from _inputs import optional_path, paths, run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.export import ExportInputs, ExportOutput, export_run
    from rib.evaluation.settings import ExportSettings

    files = snakemake.input
    settings = from_params(ExportSettings, snakemake.params.cfg)
    exported_run = run_of(snakemake.wildcards)
    accuracy, ri = paths(files.tables)
    card_template, _citation_template = paths(files.templates)
    export_run(
        source=run_on_dataset(
            files,
            run=exported_run,
            dataset=dataset_of(files, exported_run.target, decode_workers=snakemake.threads),
            settings=settings,
        ),
        inputs=ExportInputs(
            archive=optional_path(files.archive),
            accuracy=accuracy,
            ri=ri,
            records=paths(files.records),
            card_template=card_template,
            citation=Path(files.citation),
        ),
        settings=settings,
        output=ExportOutput(
            weights=output["weights"],
            config=output["config"],
            card=output["card"],
            head=output.get("head"),
        ),
    )
