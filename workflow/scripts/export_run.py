"""Export one run in its library's format, with a model card."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import optional_folder, optional_path, paths, run_of
    from _networks import dataset_of, run_on_dataset
    from rib.base.settings import from_params
    from rib.evaluation.export import ExportFiles, PublishedModel, export_network
    from rib.report.model_card import CardFiles, CardNetwork, write_card
    from rib.report.settings import ExportSettings
    from rib.statistics.metrics import write_metrics

    settings = from_params(ExportSettings, snakemake.params.cfg)
    files = snakemake.input
    exported_run = run_of(snakemake.wildcards)
    source = run_on_dataset(
        files,
        run=exported_run,
        dataset=dataset_of(files, exported_run.target, snakemake.threads),
        settings=settings,
    )
    exported = export_network(
        source,
        PublishedModel(
            archive=optional_path(files.archive),
            weights=settings.published,
            label_names=settings.label_names,
        ),
        ExportFiles(weights=output["weights"], config=output["config"], head=output.get("head")),
    )
    tables = output["card"].with_name("tables")
    tables.mkdir()
    table_files = {name: tables / f"{name}.csv" for name in settings.tables}
    write_metrics(
        rows=paths(files.rows),
        manifests=paths(files.row_manifests),
        indexes=paths(files.indexes),
        proxy=optional_folder(files.proxy),
        splits=paths(files.splits),
        settings=settings.metrics,
        outputs={
            **table_files,
            "counts": tables / "counts.npz",
            "mri_json": tables / "mri.json",
        },
    )
    write_card(
        CardNetwork(
            run=exported_run,
            weights=source.weights,
            facts=exported.facts,
            preprocessing=exported.preprocessing,
        ),
        settings.card,
        CardFiles(
            accuracy=table_files["accuracy"],
            ri=table_files["ri"],
            records=paths(files.records),
            template=Path(files.templates[0]),
            citation=Path(files.citation),
        ),
        output["card"],
    )
