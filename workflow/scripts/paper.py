"""List this run's counterparts of the paper's figures and tables."""

from _run import run

with run(snakemake) as output:
    from rib.base.files import write_text
    from rib.base.params import from_params
    from rib.report.paper import paper_list
    from rib.report.report_settings import PaperSettings

    settings = from_params(PaperSettings, snakemake.params.cfg)
    write_text(output["readme"], paper_list(settings))
