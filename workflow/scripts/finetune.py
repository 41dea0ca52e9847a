"""Fine-tune one model on one target with one method, or import weights trained elsewhere.

A rule with outputs for snapshots keeps them; the last snapshot is the checkpoint.
"""

from pathlib import Path

from _run import run

with run(snakemake, resumes="state.pt") as output:
    from _inputs import (
        checkpoints_of,
        dataset_of_manifest,
        folder_of,
        optional_folder,
        optional_path,
    )
    from rib.base.params import from_params
    from rib.data.data_settings import DatasetView
    from rib.data.view import DatasetFiles
    from rib.monitoring.watch import Watch, datasets_there
    from rib.schema.run import Run
    from rib.training.finetune import finetune
    from rib.training.training_settings import FineTuningSettings

    files = snakemake.input
    settings = from_params(FineTuningSettings, snakemake.params.cfg)
    fine_tuned_run = Run.from_wildcards(snakemake.wildcards)
    reference = None
    if files.reference:
        reference = DatasetFiles(
            name=dataset_of_manifest(files.reference),
            folder=folder_of(files.reference),
            split=optional_path(files.reference_split),
            decode_workers=snakemake.threads,
        )
    snapshots = [path for name, path in output.items() if name.startswith("snapshot")]
    watch = None
    if settings.training is not None:
        monitor = snakemake.params.monitor
        watch = Watch(
            model_folder=folder_of(files.model),
            view=from_params(DatasetView, monitor["view"]),
            log_file=snakemake.log[0],
            monitored=datasets_there(monitor["datasets"], snakemake.threads),
            history=output["history"],
        )
    finetune(
        run=fine_tuned_run,
        model_folder=folder_of(files.model),
        start=checkpoints_of(settings.parents, files.checkpoints),
        target=DatasetFiles(
            name=fine_tuned_run.target,
            folder=folder_of(files.target),
            proxy=optional_folder(files.target_proxy),
            split=optional_path(files.target_split),
            decode_workers=snakemake.threads,
        ),
        reference=reference,
        text_folder=optional_folder(files.get("text", [])),
        shared_fisher=optional_path(files.get("shared_fisher", [])),
        settings=settings,
        checkpoint=snapshots[-1] if snapshots else output["checkpoint"],
        history=output.get("history"),
        snapshots=snapshots,
        manifest=output["manifest"],
        saved=output["manifest"].with_name("state.pt"),
        rescue=Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
        watch=watch,
    )
