"""Comparison of methods: differences from a reference, pairs, a ranking, spread over seeds."""

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.statistics.statistics_settings import ri_statistics

RANKING = Table(
    title="Ranking of methods",
    question="method",
    note=(
        "mRI in percentage points, best first. The difference is mRI minus the mRI of the "
        "reference (compare_to). Its interval, over objects and, from three seeds on, trainings, "
        "is simultaneous over the ranked methods of a model and size; targets, datasets and, with "
        "fewer seeds, networks are fixed. Methods that share a letter don't differ clearly (paired "
        "test below, Holm-adjusted), which does not make them equal."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("mRI", "mri", form="signed", interval=("ci_low", "ci_high")),
        Column("Difference", "difference", form="signed", interval=("diff_low", "diff_high")),
        Column("From", "reference", form="text"),
        Column("Seeds", "seeds"),
        Column("Rank from", "rank_best"),
        Column("to", "rank_worst"),
        Column("Letters (same: inconclusive)", "letters"),
        Column("Smallest difference", "smallest_difference", form="number"),
        Column("Versus pretrained", "pretrained"),
    ],
)
COMPARISONS = Table(
    title="Pairwise comparison of methods",
    question="method",
    note=(
        "Difference of mRI, first method minus second, in percentage points, on the same objects. "
        "p is two-sided, from sign flips of objects jointly in all targets, datasets and seeds or, "
        "with three or more seeds, from the variance over objects and seeds. It is Holm-adjusted "
        "over the pairs of a model and size; confidence intervals are not adjusted. SD and "
        "t-interval are over seeds, with fixed objects."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Minus", "other"),
        Column("Size", "size"),
        Column("Difference", "difference", form="signed", interval=("ci_low", "ci_high")),
        Column("p", "p", form="p"),
        Column("Holm p", "p_holm", form="p"),
        Column("Objects", "objects"),
        Column("Seeds", "seeds"),
        Column("SD over seeds (pp)", "seed_sd", form="number"),
        Column("t-interval over seeds from", "seed_low", form="signed"),
        Column("to", "seed_high", form="signed"),
    ],
)
SEEDS_RI = Table(
    title="RI over seeds",
    question="survived",
    note=(
        "Mean over seeds, in percentage points. The confidence interval is over objects and, with "
        "three or more seeds, over seeds as well; SD and t-interval are over seeds alone, with "
        "fixed objects, and empty if there is only one seed or for a merge over seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
        Column("Seeds", "seeds"),
        Column("SD over seeds (pp)", "seed_sd", form="number"),
        Column("t-interval over seeds from", "seed_low", form="signed"),
        Column("to", "seed_high", form="signed"),
    ],
)
CAPTION = """\
Each method's mRI minus the mRI of a reference method, best on top; right of 0 a method gains more.
Bars are confidence intervals, simultaneous over the methods of a panel; filled: without 0. They
resample objects and, from three seeds on, trainings; targets, datasets and, with fewer seeds,
trained networks are fixed. Dotted: the pretrained model. Methods that share a letter do not differ
clearly (paired test, Holm-adjusted p), which does not make them equal.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figure that compare methods by mRI and RI."""
    return Analysis(
        inputs={"counts": paths.counts, "fit": paths.table("fit")},
        params={"ri": to_params(ri_statistics(grid)), "compare_to": grid.compare_to},
        makes=["comparisons.csv", "comparisons_ri.csv", "ranking.csv", "seeds_ri.csv"],
        tables={"ranking": RANKING, "comparisons": COMPARISONS, "seeds_ri": SEEDS_RI},
        files={"Methods compared per target": ["comparisons_ri.csv"]},
        figures={
            "ranking": Figure(
                question="method",
                caption=CAPTION,
                inputs={"ranking": paths.table("ranking")},
                params=labels.styled_means,
                without_underfitted=True,  # their methods have no rank
            )
        },
    )
