"""Publish what was made of a grid: copy it to where users look for it."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.report.publication import publish
    from rib.report.settings import PublicationSettings

    publish(
        files=[Path(file) for file in snakemake.input.files],
        copies={name: path for name, path in output.items() if name != "provenance"},
        settings=from_params(PublicationSettings, snakemake.params.cfg),
    )
