"""Comparison of groups of networks that differ in pretraining, and of methods on each group."""

from collections import Counter

from rib.base.params import to_params
from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Figure, Table
from rib.statistics.statistics_settings import in_distribution_datasets, ri_statistics

NETWORK_DIFFERENCES = Table(
    title="Differences between groups of networks",
    question="model",
    note=(
        "Mean over the networks of the first group minus the mean of the second, in percentage "
        "points, for each method and measure. One interval is over networks (Welch's t), with "
        "objects fixed: for all networks that could be pretrained like these. The other is over "
        "objects (bootstrap), for these networks. Targets are fixed in both. An interval that "
        "holds 0 does not make groups equal. p is Welch's, Holm-adjusted over the pairs of groups "
        "of a method, size and measure."
    ),
    columns=[
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Measure", "measure"),
        Column("Group", "group"),
        Column("Minus", "other_group"),
        Column("Networks", "networks", form="count"),
        Column("Networks of the second", "other_networks", form="count"),
        Column("Difference", "difference", form="signed", interval=("ci_low", "ci_high")),
        Column("Interval over", "over"),
        Column("Fixed", "fixed"),
        Column("Degrees of freedom", "df", form="number"),
        Column("p", "p", form="p"),
        Column("Holm p", "p_holm", form="p"),
        Column("Remark", "remark"),
    ],
)
NETWORK_GROUPS = Table(
    title="Means of groups of networks",
    question="model",
    note=(
        "Networks of a group differ only in what chance decides in pretraining. Means over them, "
        "for each method and measure: accuracies in percent, mRI and the change in distribution "
        "(in_distribution) in percentage points. Intervals over networks are Student's t with "
        "objects fixed, wider the fewer networks there are; those over objects are bootstrap "
        "intervals for these networks. Targets are fixed in both. Networks with an underfitted run "
        "of a method don't count for it."
    ),
    columns=[
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Measure", "measure"),
        Column("Group", "group"),
        Column("Pretrained on", "pretraining_images", form="count"),
        Column("Networks", "networks", form="count"),
        Column("Mean", "mean", form="number", interval=("ci_low", "ci_high")),
        Column("SD over networks", "sd", form="number"),
        Column("Interval over", "over"),
        Column("Fixed", "fixed"),
        Column("Degrees of freedom", "df", form="count"),
        Column("Remark", "remark"),
    ],
)
METHOD_DIFFERENCES = Table(
    title="Differences between methods, over networks",
    question="method",
    note=(
        "A method minus the reference method on the same network (paired), mean over the networks "
        "of a group, for each measure: accuracies in percentage points. One interval is over "
        "networks (Student's t), with objects fixed: for all networks that could be pretrained "
        "like these. The other is over objects (bootstrap), for these networks. Targets are fixed "
        "in both. Intervals are not adjusted for the number of methods. Networks with an "
        "underfitted run of either method don't count."
    ),
    columns=[
        Column("Method", "method"),
        Column("Minus", "reference"),
        Column("Size", "size"),
        Column("Measure", "measure"),
        Column("Group", "group"),
        Column("Networks", "networks", form="count"),
        Column("Difference", "mean", form="signed", interval=("ci_low", "ci_high")),
        Column("SD over networks", "sd", form="number"),
        Column("Interval over", "over"),
        Column("Fixed", "fixed"),
        Column("Degrees of freedom", "df", form="count"),
        Column("Remark", "remark"),
    ],
)
CAPTION = """\
Groups of networks that differ only in what chance decides in pretraining. Above: mean accuracy on
the out-of-distribution datasets other than the target, before (black stars) and after fine-tuning;
below: mRI, the difference. A dot is a network, a marker the mean of its group, a whisker Student's
t interval over networks, with images and targets fixed. With few networks a wide whisker says that
little is known, not that groups are alike; nor does an overlap say so.
"""
DIFFERENCES_CAPTION = """\
Each method's mRI minus that of a reference method on the same network, best on top; right of 0 a
method keeps more robustness. A panel is a group of networks that differ only in what chance decides
in pretraining. A dot is a network, a marker their mean, a bar Student's t interval over networks,
with images and targets fixed; filled: it excludes 0. Intervals are not adjusted for the number of
methods.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake tables and figure of groups of networks pretrained alike.

    Networks of a group differ by chance, such as in their seeds. None if no group (`group` of a
    model) has several networks.
    """
    group_of_model = {name: model.group for name, model in grid.models.items() if model.group}
    largest_group = max(Counter(group_of_model.values()).values(), default=0)
    if largest_group < 2 or not labels.has_figures:
        return None
    pretrained_here = [name for name in group_of_model if grid.models[name].is_trained_here]
    stated_images = {name: grid.models[name].stated_pretraining_images for name in group_of_model}
    return Analysis(
        inputs={
            "counts": paths.counts,
            "fit": paths.table("fit"),
            "descriptions": [paths.model("model.json", name) for name in pretrained_here],
        },
        params={
            "ri": to_params(ri_statistics(grid)),
            "groups": group_of_model,
            "in_distribution": in_distribution_datasets(grid),
            "pretraining_images": {name: n for name, n in stated_images.items() if n},
            "compare_to": grid.compare_to,
        },
        makes=[
            "method_differences.csv",
            "network_differences.csv",
            "network_groups.csv",
            "networks.csv",
        ],
        tables={
            "method_differences": METHOD_DIFFERENCES,
            "network_differences": NETWORK_DIFFERENCES,
            "network_groups": NETWORK_GROUPS,
        },
        files={"Measures of each network": ["networks.csv"]},
        figures={
            "networks": Figure(
                question="model",
                caption=CAPTION,
                inputs={name: paths.table(name) for name in ("networks", "network_groups")},
                params={
                    **labels.styled_means,
                    "models": {name: labels.models[name] for name in group_of_model},
                },
            ),
            "method_differences": Figure(
                question="method",
                caption=DIFFERENCES_CAPTION,
                inputs={name: paths.table(name) for name in ("networks", "method_differences")},
                params={
                    **labels.styled_means,
                    "models": {name: labels.models[name] for name in group_of_model},
                },
            ),
        },
    )
