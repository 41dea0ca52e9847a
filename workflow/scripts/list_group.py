"""List the datasets of an evaluation group."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.base.settings import from_params
    from rib.data.groups import write_group
    from rib.data.settings import GroupSettings

    settings = from_params(GroupSettings, snakemake.params.cfg)
    write_group(
        datasets=settings.datasets,
        manifests=paths(snakemake.input.manifests),
        manifest=output["manifest"],
    )
