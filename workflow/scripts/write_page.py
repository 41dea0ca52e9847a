"""Write the page of a run."""

from pathlib import Path

from _run import arguments, run

with run(snakemake, warm="tables") as out:
    from rib.reporting.crate import write_crate
    from rib.reporting.page import write_page

    cfg, files = snakemake.params.cfg, snakemake.input
    analyses = dict(zip(cfg["analyses"], map(Path, files.analyses), strict=True))
    records = [*cfg["upstream"], *files.records]
    cells = next(map(Path, files.cells), None)
    write_page(
        **arguments(write_page, snakemake, out, analyses=analyses, records=records, cells=cells)
    )
    if snakemake.output.get("crate"):  # a preview has none
        folder = Path(snakemake.output.page).parent
        write_crate(**arguments(write_crate, snakemake, out, records=records, folder=folder))
