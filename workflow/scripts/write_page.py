"""Write the page of a run."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.params import from_params
    from rib.report.page import write_page
    from rib.report.report_settings import PageSettings
    from rib.report.stale import remove_other_files

    files = snakemake.input
    write_page(
        from_params(PageSettings, snakemake.params.cfg),
        citation=Path(files.citation),
        records=list(files.records),
        cells=Path(files.cells[0]) if files.cells else None,
        page=output["page"],
    )
    remove_other_files(Path(snakemake.output.page).parent, map(Path, snakemake.params.files))
