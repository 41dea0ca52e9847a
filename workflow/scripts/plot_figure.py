"""Plot one figure."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.config.figure_settings import FigureSettings
    from rib.figures import FigureFiles, write_figure
    from rib.jobs.script import named_inputs

    inputs = named_inputs(snakemake)
    fit = inputs.pop("fit", None)  # marks methods with unfinished runs, and is not drawn itself
    write_figure(
        inputs=inputs,
        settings=from_params(FigureSettings, snakemake.params.cfg),
        files=FigureFiles(png=output["png"], csv=output["csv"], pdf=output.get("pdf")),
        fit=Path(fit) if fit else None,
    )
