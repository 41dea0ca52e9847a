"""Accuracy by class, and the classes that lose most. No torch."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from rib.catalog.label_space import LabelSpace
from rib.statistics.counts import Counts
from rib.statistics.objects import CountedObjects, Indices
from rib.statistics.scored_state import ScoredState

WORST = 10  # per model, method and size
GROUP = ["model", "method", "size"]
ACCURACIES = ["before", "after", "change"]
COLUMNS = [*GROUP, "dataset", "class", "name", "outputs", "n", *ACCURACIES]


def class_table(
    counts: Counts, spaces: Mapping[str, LabelSpace], source_groups: Mapping[str, str] | None
) -> pd.DataFrame:
    """Accuracy by class, for each model, method, size and dataset, with the columns `COLUMNS`.

    Accuracies (percent) are over the images of the class in all runs whose target is another
    dataset. Classes without images and curves (runs with a network for each alpha) are left out.

    Args:
        spaces: label space (classes and their network outputs) by dataset.
        source_groups: group of datasets made from the same images, by dataset, such as {"flat":
            "fluent", "3d": "fluent"}, for leak-free results; None counts all images.
    """
    pretrained_of_model, states_of_group = _states_of_groups(counts.states)
    targets_of_groups = [
        counts.states[i].run.target for states in states_of_group.values() for i in states
    ]
    counted_objects = {
        # In all datasets, also in distribution.
        target: counts.counted(target, ood_datasets=None, source_groups=source_groups)
        for target in dict.fromkeys(targets_of_groups)
    }

    tables = []
    for (model, method, size), states in states_of_group.items():
        for dataset in counts.datasets:
            runs = _runs_counted_on(counts, dataset, states, counted_objects)
            pretrained = pretrained_of_model[model]
            columns = _columns_of_classes(counts, dataset, spaces[dataset], runs, pretrained)
            classes = len(columns["n"])
            columns["model"] = np.full(classes, model, object)
            columns["method"] = np.full(classes, method, object)
            columns["size"] = np.full(classes, size, object)
            columns["dataset"] = np.full(classes, dataset, object)
            tables.append(columns)
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    # Making one data frame of each table would take longer than the counting.
    joined_columns = {}
    for name in COLUMNS:
        joined_columns[name] = np.concatenate([columns[name] for columns in tables])
    return pd.DataFrame(joined_columns)


def _states_of_groups(
    states: Sequence[ScoredState],
) -> tuple[dict[str, int], dict[tuple[str, str, str], list[int]]]:
    """Indices of pretrained and fine-tuned states: ({"net": 0}, {("net", "ft", "all"): [3, 4]})."""
    pretrained_of_model: dict[str, int] = {}
    states_of_group: dict[tuple[str, str, str], list[int]] = {}
    for i, state in enumerate(states):
        if state.is_pretrained:
            pretrained_of_model[state.run.model] = i
        # A run that is a curve has several states.
        elif not state.is_on_curve:
            group = (state.run.model, state.run.method, state.run.size)
            states_of_group.setdefault(group, []).append(i)
    return pretrained_of_model, states_of_group


def _runs_counted_on(
    counts: Counts,
    dataset: str,
    states: Sequence[int],
    counted_objects: Mapping[str, CountedObjects],
) -> list[tuple[int, Indices]]:
    """States (indices) whose RI includes the dataset, and objects that count: [(3, [0, 2])]."""
    runs = []
    for i in states:
        objects_of_dataset = counted_objects[counts.states[i].run.target]
        # The target itself is missing and, in leak-free results, a dataset of which no object
        # counts, since it was made from the same source images.
        if dataset in objects_of_dataset:
            runs.append((i, objects_of_dataset[dataset]))
    return runs


def _columns_of_classes(
    counts: Counts,
    dataset: str,
    space: LabelSpace,
    runs: Sequence[tuple[int, Indices]],
    pretrained: int,
) -> dict[str, np.ndarray]:
    """{"class": ["n02123045"], "name": ["tabby"], ..., "change": [-2.5]}: classes with images."""
    # `runs` are indices of states, each with the objects that count; `pretrained` is the index of
    # the state before.
    images = counts.images[dataset]  # (objects,)
    correct = counts.correct[dataset]  # (states, objects)
    counted_runs = np.zeros(len(images))  # (objects,) runs in which an object counts
    correct_after = np.zeros(len(images))  # (objects,) right answers in these runs
    for i, objects in runs:
        counted_runs[objects] += 1
        correct_after[objects] += correct[i][objects]

    def sums_of_classes(numbers_of_objects: np.ndarray) -> np.ndarray:
        """(objects,) to (classes,); each object shows one class."""
        class_of_object = counts.labels[dataset]
        return np.bincount(class_of_object, numbers_of_objects, len(space.keys))

    n = sums_of_classes(images * (counted_runs > 0))
    images_of_runs = sums_of_classes(images * counted_runs)  # an image counts once in each run
    images_of_runs = np.maximum(images_of_runs, 1)  # avoids dividing by 0
    before = 100 * sums_of_classes(correct[pretrained] * counted_runs) / images_of_runs
    after = 100 * sums_of_classes(correct_after) / images_of_runs
    outputs = [" ".join(map(str, outputs_of_class)) for outputs_of_class in space.indices]
    columns = {
        "class": np.array(space.keys, object),
        "name": np.array(space.names, object),
        "outputs": np.array(outputs, object),
        "n": n.astype(int),
        "before": before,
        "after": after,
        "change": after - before,
    }
    has_images = n > 0
    return {name: column[has_images] for name, column in columns.items()}


def worst_classes(classes: pd.DataFrame, ood_datasets: Collection[str]) -> pd.DataFrame:
    """The classes that lose most accuracy, at most `WORST` for each model, method and size.

    Accuracies are means over OOD datasets. Classes of two datasets are the same if they have the
    same network outputs; the first dataset gives key and name.

    Args:
        classes: columns `COLUMNS`, from `class_table`.
        ood_datasets: out-of-distribution datasets, which count in RI.

    Returns:
        model, method, size, class, name, datasets (their number), n (over all of them), before,
        after, change (percent).
    """
    ood_classes = classes[classes["dataset"].isin(ood_datasets)]
    same_classes = ood_classes.groupby([*GROUP, "outputs"], sort=False, as_index=False)
    aggregations = {
        "class": ("class", "first"),
        "name": ("name", "first"),
        "datasets": ("dataset", "size"),
        "n": ("n", "sum"),
    }
    for column in ACCURACIES:
        aggregations[column] = (column, "mean")
    means = same_classes.agg(**aggregations).drop(columns="outputs")
    losing = means[means["change"] < 0].sort_values("change", kind="stable")
    worst = losing.groupby(GROUP, sort=False).head(WORST)
    in_order_of_groups = classes[GROUP].drop_duplicates()
    return in_order_of_groups.merge(worst, on=GROUP)
