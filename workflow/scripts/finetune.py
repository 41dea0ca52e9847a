"""Fine-tune one model on one target with one method, or import weights that were trained elsewhere.

Snapshots of the weights are kept if the rule has outputs for them; the last is the checkpoint.
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
        paths,
        run_of,
    )
    from rib.base.settings import from_params
    from rib.data.view import DatasetFiles
    from rib.monitoring.watch import Watch
    from rib.training.finetune import FineTuningInputs, FineTuningOutput, finetune
    from rib.training.settings import FineTuningSettings

    files = snakemake.input
    settings = from_params(FineTuningSettings, snakemake.params.cfg)
    fine_tuned_run = run_of(snakemake.wildcards)
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
        monitored = files.get("monitored", [])
        view = settings.view
        if monitored:
            from rib.monitoring.monitored_view import monitored_view

            monitored_datasets = [dataset_of_manifest(manifest) for manifest in monitored]
            view = monitored_view(settings.view, monitored_datasets, snakemake.config)
        watch = Watch(
            model_folder=folder_of(files.model),
            view=view,
            log_file=snakemake.log[0],
            monitored=paths(monitored),
            monitored_splits=paths(files.get("monitored_splits", [])),
            monitored_related=paths(files.get("monitored_related", [])),
            monitored_proxy_folder=optional_folder(files.get("monitored_proxy", [])),
            history=output["history"],
            decode_workers=snakemake.threads,
        )
    finetune(
        run=fine_tuned_run,
        inputs=FineTuningInputs(
            model_folder=folder_of(files.model),
            target=DatasetFiles(
                name=fine_tuned_run.target,
                folder=folder_of(files.target),
                proxy=optional_folder(files.target_proxy),
                split=optional_path(files.target_split),
                decode_workers=snakemake.threads,
            ),
            reference=reference,
            start=checkpoints_of(settings.parents, files.checkpoints),
            text_folder=optional_folder(files.get("text", [])),
            shared_fisher=optional_path(files.get("shared_fisher", [])),
        ),
        settings=settings,
        output=FineTuningOutput(
            checkpoint=snapshots[-1] if snapshots else output["checkpoint"],
            manifest=output["manifest"],
            saved=output["manifest"].with_name("state.pt"),
            rescue=Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
            history=output.get("history"),
            snapshots=snapshots,
        ),
        watch=watch,
    )
