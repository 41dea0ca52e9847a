"""Compare the accuracies of pretrained models with those that their publishers state."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analyses.published.settings import PublishedSettings
    from rib.analyses.published.tables import compare
    from rib.base.settings import from_params

    compare(
        rows=paths(snakemake.input.rows),
        settings=from_params(PublishedSettings, snakemake.params.cfg),
        table=output["published"],
    )
