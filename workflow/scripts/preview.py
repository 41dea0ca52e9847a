"""Make tables, figures and a page of the runs that are finished now."""

from _run import run

with run(snakemake):
    from rib.base.settings import from_params
    from rib.report.preview import write_preview
    from rib.report.settings import PreviewJobSettings

    write_preview(from_params(PreviewJobSettings, snakemake.params.cfg), snakemake.log[0])
