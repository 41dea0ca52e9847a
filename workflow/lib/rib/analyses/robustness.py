"""The benchmark itself: accuracies, RI and mRI of the whole grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rib.config.analysis import Analysis, Column, Table
from rib.statistics.settings import in_distribution_datasets

if TYPE_CHECKING:
    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths

MRI = Table(
    title="Mean robustness improvement",
    question="survived",
    note=(
        "RI is the mean change of accuracy over the out-of-distribution datasets other than the "
        "target; datasets in distribution do not count. mRI is the mean of RI over targets, in "
        "percentage points: mean accuracy on these datasets after fine-tuning (OOD after) minus "
        "before. Its confidence interval is over objects and, with three or more seeds, over "
        "seeds, for these targets. Over the targets RI has a standard deviation (SD); taken as a "
        "sample of targets, their mean has the interval beside it (Student's). An adversarially "
        "filtered dataset has the images that some network got wrong; mRI is also shown without "
        "such datasets, where nearly any change raises a low accuracy. SD and t-interval over "
        "seeds are of mRI with fixed objects, and left out with one seed. Accuracy on the target "
        "is that of the images scored, which under protocol paper include the images trained on. A "
        "merge over seeds is one network per target: its interval is over objects, and it has no "
        "spread over seeds."
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
        "target; datasets in distribution do not count. It is accuracy after fine-tuning minus "
        "before, in percentage points; then, where a target lacks classes, the same over images of "
        "classes that the training images show, and of the others. Each is a mean over datasets "
        "with equal weight, of which some may have very few such images, so RI need not lie "
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
# Each dataset has a column after these.
ACCURACY = Table(
    title="Accuracy on every dataset",
    question="survived",
    note=(
        "Top-1 accuracy in percent of each run (rows) on each dataset (columns). A prediction is "
        "the class with the highest logit among those that the dataset has; of a class with "
        "several network outputs the highest counts. The CSV has a row for each run and dataset, "
        "with the dataset's role for the run: target; ood, which counts in RI; shared, with "
        "leak_free an out-of-distribution dataset with source images of the target, of which only "
        "the other images count; in_distribution and variant (of a dataset that is there too), "
        "which do not count."
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
    """Tables of the rule compute_metrics; figures of them are analyses of their own."""
    tables = {"mri": MRI, "ri": RI, "accuracy": ACCURACY}
    if in_distribution_datasets(grid):
        tables["in_distribution"] = IN_DISTRIBUTION
    if grid.leaking_groups():
        tables["leak_free"] = LEAK_FREE
    tables["worst_classes"] = WORST_CLASSES
    return Analysis(
        tables=tables,
        files={"Accuracy by class": ["classes.csv"]},
        of_metrics=True,
    )
