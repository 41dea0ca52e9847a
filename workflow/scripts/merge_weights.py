"""Write the file of one merge."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths, run_of
    from rib.base.settings import from_params
    from rib.evaluation.merge_files import write_merge
    from rib.evaluation.settings import MergeSettings

    write_merge(
        run=run_of(snakemake.wildcards),
        manifests=paths(snakemake.input.manifests),
        settings=from_params(MergeSettings, snakemake.params.cfg),
        merge_file=output["merge"],
    )
