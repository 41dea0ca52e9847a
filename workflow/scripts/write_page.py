"""Write the page of a run."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.base.settings import from_params
    from rib.report.page import PageInputs, write_page
    from rib.report.settings import PageSettings

    settings = from_params(PageSettings, snakemake.params.cfg)
    files = snakemake.input
    inputs = PageInputs(
        mri=Path(files.mri),
        ri=Path(files.ri),
        accuracy=Path(files.accuracy),
        fit=Path(files.fit),
        analyses=dict(zip(settings.analyses, map(Path, files.analyses), strict=True)),
        columns=[Path(file) for file in files.columns],
        figures=[Path(file) for file in files.figures],
        captions=[Path(file) for file in files.captions],
        citation=Path(files.citation),
        records=[*settings.upstream, *files.records],
        cells=Path(files.cells[0]) if files.cells else None,
    )
    write_page(inputs, settings, output["page"])
