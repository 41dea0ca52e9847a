"""Publish what stands for the figures and tables of the paper, with a list of it."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.report.paper import write_paper
    from rib.report.settings import PaperSettings

    files = [Path(file) for file in snakemake.input.files]
    write_paper(
        files=files,
        copies={file.name: output[file.name] for file in files},
        readme=output["readme"],
        settings=from_params(PaperSettings, snakemake.params.cfg),
    )
