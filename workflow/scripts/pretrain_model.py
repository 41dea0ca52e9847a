"""Train one model from random weights."""

from pathlib import Path

from _run import run

with run(snakemake, resumes="state.pt") as output:
    from _inputs import folder_of
    from rib.base.params import from_params
    from rib.data.view import DatasetFiles
    from rib.training.pretrain import pretrain
    from rib.training.training_settings import PretrainingSettings

    files = snakemake.input
    settings = from_params(PretrainingSettings, snakemake.params.cfg)
    pretrain(
        dataset=DatasetFiles(
            name=settings.entry["pretrain"]["dataset"],
            folder=folder_of(files.dataset),
            decode_workers=snakemake.threads,
        ),
        test=DatasetFiles(
            name=settings.entry["pretrain"]["test"],
            folder=folder_of(files.test),
            decode_workers=snakemake.threads,
        ),
        settings=settings,
        weights=output["weights"],
        description=output["description"],
        history=output["history"],
        saved=output["weights"].with_name("state.pt"),
        rescue=Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
    )
