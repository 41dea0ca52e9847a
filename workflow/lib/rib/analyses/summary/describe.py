"""RI on every target and mRI of all methods as tables for papers: Markdown, LaTeX and CSV."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis
from rib.statistics.conditions import conditions_of

FILES = ["summary.md", "summary.tex", "summary.csv"]
SUMMARIZED = ["mri", "seeds_ri", "comparisons", "comparisons_ri", "ranking"]  # names of tables


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake files with RI and mRI for papers, a table per model."""
    return Analysis(
        inputs={name: paths.table(name) for name in [*SUMMARIZED, "fit"]},
        params={
            "labels": labels.by_target,
            "confidence": labels.confidence,
            "conditions": "; ".join(conditions_of(grid)),
        },
        makes=FILES,
        files={"RI of every target and mRI, for papers and notes": FILES},
    )
