"""Export one run in its library's format, with a model card."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import folder_of, optional_folder, optional_path, paths
    from _networks import dataset_of, networks_of_job
    from rib.base.params import from_params
    from rib.evaluation.export import export_network
    from rib.evaluation.networks import mixture_of_run
    from rib.report.model_card import write_card
    from rib.report.report_settings import ExportSettings
    from rib.schema.run import Run
    from rib.statistics.metrics import write_metrics

    settings = from_params(ExportSettings, snakemake.params.cfg)
    files = snakemake.input
    exported_run = Run.from_wildcards(snakemake.wildcards)
    networks = networks_of_job(files, exported_run, settings)
    preprocessing = export_network(
        run=exported_run,
        networks=networks,
        target=dataset_of(files, exported_run.target, decode_workers=snakemake.threads),
        view=settings.view,
        archive=optional_path(files.archive),
        published=settings.published,
        label_names=settings.label_names,
        weights=output["weights"],
        config=output["config"],
        head=output.get("head"),
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
        run=exported_run,
        mixture=mixture_of_run(exported_run, networks.states),
        model=folder_of(files.model) / "model.json",
        preprocessing=preprocessing,
        settings=settings,
        accuracy=table_files["accuracy"],
        ri=table_files["ri"],
        records=paths(files.records),
        template=Path(files.templates[0]),
        citation=Path(files.citation),
        card=output["card"],
    )
