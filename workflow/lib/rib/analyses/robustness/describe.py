"""The benchmark itself: accuracies, RI and mRI of the whole grid."""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import leaking_groups
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Column, Table
from rib.statistics.statistics_settings import in_distribution_datasets

MRI = Table(
    title="Mean robustness improvement",
    question="survived",
    note=(
        "RI is the mean change of accuracy over the out-of-distribution datasets other than the "
        "target; datasets in distribution do not count. mRI is the mean of RI over targets, in "
        "percentage points. Its confidence interval is over objects and, with three or more seeds, "
        "seeds, for these targets; the t-interval over targets takes them as a sample. SD and "
        "t-interval over seeds have fixed objects. Under protocol paper accuracy on the target "
        "includes the images trained on."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("mRI", "mri", form="signed", interval=("ci_low", "ci_high")),
        Column("OOD before (%)", "ood_before", form="number"),
        Column("OOD after (%)", "ood_after", form="number"),
        Column(
            "Without filtered datasets",
            "without_filtered",
            form="signed",
            interval=("without_filtered_low", "without_filtered_high"),
            optional=True,
        ),
        Column(
            "On the target (%)",
            "on_target",
            form="number",
            interval=("on_target_low", "on_target_high"),
        ),
        Column("Targets", "targets"),
        Column("SD over targets (pp)", "target_sd", form="number"),
        Column("t-interval over targets from", "target_low", form="signed"),
        Column("to", "target_high", form="signed"),
        Column("Seeds", "seeds"),
        Column("SD over seeds (pp)", "seed_sd", form="number"),
        Column("t-interval over seeds from", "seed_low", form="signed"),
        Column("and to", "seed_high", form="signed"),
    ],
)
IN_DISTRIBUTION = Table(
    title="Accuracy in distribution",
    question="survived",
    note=(
        "Mean accuracy on the datasets in distribution before and after fine-tuning, over targets, "
        "and the change in percentage points."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Change", "change", form="signed", interval=("ci_low", "ci_high")),
        Column("Before (%)", "before", form="number"),
        Column("After (%)", "after", form="number"),
    ],
)
RI = Table(
    title="Robustness improvement per target",
    question="survived",
    note=(
        "RI is the mean change of accuracy over the out-of-distribution datasets other than the "
        "target; datasets in distribution do not count. It is in percentage points; where a target "
        "lacks classes, also over images of classes that the training images show, and of the "
        "others. Each is a mean over datasets, some with very few such images, so RI need not lie "
        "between the two. A gain on the other classes can also come from lower logits of the "
        "trained ones (docs/how-it-works.md)."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="text"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
        Column("Images", "n"),
        Column(
            "Classes of the target",
            "ri_seen",
            form="signed",
            interval=("seen_low", "seen_high"),
            repeats_without="ri_unseen",
        ),
        Column(
            "Images of the target's classes", "n_seen", form="count", repeats_without="ri_unseen"
        ),
        Column("Other classes", "ri_unseen", form="signed", interval=("unseen_low", "unseen_high")),
        Column("Images of other classes", "n_unseen", form="count"),
    ],
)
LEAK_FREE = Table(
    title="Without shared source images",
    question="survived",
    note=(
        "RI of the targets that share source images with other datasets, and as target mean the "
        "mRI over all targets; then the same without the images that share their source with one "
        "of the target (leak-free). A gain on those images may be recognition. Missing: a target "
        "leaves no other image."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("RI", "ri", form="signed", interval=("ci_low", "ci_high")),
        Column(
            "Leak-free", "leak_free", form="signed", interval=("leak_free_low", "leak_free_high")
        ),
    ],
)
# The page adds a column for each dataset.
ACCURACY = Table(
    title="Accuracy on every dataset",
    question="survived",
    note=(
        "Top-1 accuracy in percent of each run (rows) on each dataset (columns). A prediction is "
        "the class with the highest logit among the classes of the dataset; of a class with "
        "several network outputs the highest counts. The CSV has a row for each run and dataset, "
        "with the dataset's role for the run: only ood counts in RI, and of shared (leak_free) "
        "only images that share no source with the target."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed", form="text"),
    ],
)
WORST_CLASSES = Table(
    title="Classes that lose most",
    question="why",
    note=(
        "The up to ten classes of a model and method whose accuracy falls most, mean over targets, "
        "seeds and the datasets other than each target. Classes of two datasets are the same if "
        "they have the same network outputs. They were chosen for their losses, of which chance is "
        "a part: a class with few images moves in large steps, so look at the number of images, "
        "which is of all these datasets together."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Class", "name"),
        Column("Change", "change", form="signed"),
        Column("Images", "n"),
        Column("Datasets", "datasets"),
        Column("Before (%)", "before", form="number"),
        Column("After (%)", "after", form="number"),
        Column("Key", "class"),
    ],
)


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare tables that the rule compute_metrics makes, so that the page shows them."""
    tables = {"mri": MRI, "ri": RI, "accuracy": ACCURACY}
    if in_distribution_datasets(grid):
        tables["in_distribution"] = IN_DISTRIBUTION
    if leaking_groups(grid):
        tables["leak_free"] = LEAK_FREE
    tables["worst_classes"] = WORST_CLASSES
    return Analysis(
        tables=tables,
        files={"Accuracy by class": ["classes.csv"]},
        of_metrics=True,
    )
