"""Write the page of a run."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "report") as out:
    from rib.report import write_page

    files = snakemake.input
    write_page(
        tables={name: Path(files[name]) for name in ("mri", "ri", "accuracy")},
        extra=dict(zip(snakemake.params.cfg["extra"], map(Path, files.extra), strict=True)),
        files=snakemake.params.cfg["files"],
        columns=Path(files.columns),
        figures=[Path(path) for path in files.figures],
        records=[*snakemake.params.cfg["upstream"], *files.records],
        captions=Path(files.captions),
        citation=Path(files.citation),
        prepared=snakemake.params.cfg["prepared"],
        about=snakemake.params.cfg["about"],
        page=out["page"],
    )
