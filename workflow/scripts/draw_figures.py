"""Draw figures, each as PNG, PDF and CSV with the numbers shown."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.params import from_params
    from rib.figures import write_figures
    from rib.grid.figure_settings import FiguresSettings

    settings = from_params(FiguresSettings, snakemake.params.cfg)
    files = {}
    for name in settings.figures:
        files[name] = {ending: output[f"{name}.{ending}"] for ending in ("png", "pdf", "csv")}
    write_figures(settings, files, Path(snakemake.log[0]))
