"""The chosen variant of each sweep, by the rule in config's `select`."""

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table
from rib.statistics.statistics_settings import ri_statistics

SELECTION = Table(
    title="Chosen variants of swept methods",
    question="method",
    note=(
        "RI in percentage points of the chosen variant; target mean is mRI. Rule target chooses by "
        "accuracy on the target's select split. Rule leave_one_out chooses for each dataset by "
        "others; it estimates a procedure and is not to be ranked beside target. Rule oracle "
        "chooses by RI itself, an upper bound without interval. Intervals are over objects and, "
        "with three or more seeds, seeds; each replicate chooses again. How much other seeds would "
        "change the choice is not included."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Rule", "rule"),
        Column("Size", "size"),
        Column("Target", "target"),
        Column("Chosen", "chosen", form="text"),
        Column("Accuracy on the select split (%)", "select_accuracy", form="number"),
        Column("Tied with", "tied_with", form="text"),
        Column("Share (%)", "chosen_share", form="number"),
        Column("Of", "variants"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
    ],
)


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the table of chosen values of swept settings; None without.

    Config's `select` is the rule that chooses. Rule `target` needs rows of select splits, the
    targets' held-out images that choose settings.
    """
    if grid.selection is None:
        return None
    runs = paths.runs_to_choose_from()
    return Analysis(
        inputs={
            "counts": paths.counts,
            "rows": paths.rows_on_select_splits(runs),
            "indexes": paths.indexes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys(run.method for run in runs)),
            "ri": to_params(ri_statistics(grid)),
            "rule": grid.selection.rule,
            "variants": grid.selection.variants,
            "groups": grid.selection.groups,
        },
        makes=["selection.csv"],
        tables={"selection": SELECTION},
    )
