"""Write tables for papers."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.analyses.comparison.settings import SummarySettings
    from rib.analyses.comparison.summary import SummarizedTables, SummaryFiles, write_summary
    from rib.base.settings import from_params

    files = snakemake.input
    write_summary(
        SummarizedTables(
            mri=Path(files.mri),
            seeds_ri=Path(files.seeds_ri),
            comparisons=Path(files.comparisons),
            comparisons_ri=Path(files.comparisons_ri),
            ranking=Path(files.ranking),
            fit=Path(files.fit),
        ),
        from_params(SummarySettings, snakemake.params.cfg),
        SummaryFiles(markdown=output["md"], latex=output["tex"], csv=output["csv"]),
    )
