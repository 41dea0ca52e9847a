"""Write what explains each cell of RI."""

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from _inputs import paths
    from rib.analyses.samples.cells import write_cells
    from rib.analyses.samples.settings import CellSettings
    from rib.base.settings import from_params

    settings = from_params(CellSettings, snakemake.params.cfg)
    write_cells(
        files=row_files(snakemake.input, settings.methods),
        classes=paths(snakemake.input.classes),
        settings=settings,
        cells=output["cells"],
    )
