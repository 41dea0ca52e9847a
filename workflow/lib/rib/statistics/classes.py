"""Accuracy by class, and the classes that lose most. No torch."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from rib.config.label_space import LabelSpace
from rib.statistics.counts import Counts, Indices
from rib.statistics.ri import CountedObjects, on_other_datasets
from rib.statistics.scored_state import ScoredState

WORST = 10  # classes of a model, method and size
GROUP = ["model", "method", "size"]
ACCURACIES = ["before", "after", "change"]
COLUMNS = [*GROUP, "dataset", "class", "name", "outputs", "n", *ACCURACIES]


def class_table(
    counts: Counts, spaces: Mapping[str, LabelSpace], source_groups: Mapping[str, str] | None
) -> pd.DataFrame:
    """Accuracy of each model, method and size by dataset and class, with the columns `COLUMNS`.

    Accuracies (percent) are over the images of the class in all runs whose target is another
    dataset. Left out are classes without images, and runs that are curves of several networks.

    Args:
        spaces: label space of each dataset, which has its classes and their network outputs.
        source_groups: for leak-free results, source group by dataset, as for
            `rib.statistics.ri.ood_accuracies`; None for all images.
    """
    pretrained_of_model, states_of_group = _states_of_groups(counts.states)
    targets_of_groups = [
        counts.states[i].run.target for states in states_of_group.values() for i in states
    ]
    counted_objects = {
        target: on_other_datasets(
            counts.object_indices,
            target,
            ood_datasets=None,  # all, also those in distribution
            source_groups=source_groups,
            shared=counts.shared,
        )
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
    # A data frame is made once: making one of each table would take longer than the counting.
    joined_columns = {}
    for name in COLUMNS:
        joined_columns[name] = np.concatenate([columns[name] for columns in tables])
    return pd.DataFrame(joined_columns)


def _states_of_groups(
    states: Sequence[ScoredState],
) -> tuple[dict[str, int], dict[tuple[str, str, str], list[int]]]:
    """Indices of states (scored networks), without those on a curve, of which a run has several.

    Returns:
        Index of the pretrained state of each model; indices of the fine-tuned states of each model,
        method and size.
    """
    pretrained_of_model: dict[str, int] = {}
    states_of_group: dict[tuple[str, str, str], list[int]] = {}
    for i, state in enumerate(states):
        if state.is_pretrained:
            pretrained_of_model[state.run.model] = i
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
    """The runs in which a dataset counts: index of each one's state, and the objects that count.

    Args:
        states: indices of the states (scored networks) of runs.
        counted_objects: by target and dataset, the objects that count in runs on the target.
    """
    runs = []
    for i in states:
        objects_of_dataset = counted_objects[counts.states[i].run.target]
        # Missing are the target itself and, in leak-free results, datasets that were made of the
        # same source images as the target, so that no object counts.
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
    """Columns of a dataset's classes that have images, from class to change, over some runs.

    Args:
        runs: index of the state of each run, and the dataset's objects that count in it.
        pretrained: index of the state before fine-tuning.
    """
    images = counts.images[dataset]  # (objects,)
    correct = counts.correct[dataset]  # (states, objects)
    counted_runs = np.zeros(len(images))  # of each object: runs in which it counts
    correct_after = np.zeros(len(images))  # of each object, over these runs
    for i, objects in runs:
        counted_runs[objects] += 1
        correct_after[objects] += correct[i][objects]

    def sums_of_classes(numbers_of_objects: np.ndarray) -> np.ndarray:
        """Sum numbers of objects, each of which shows one class: (objects,) to (classes,)."""
        class_of_object = counts.labels[dataset]
        return np.bincount(class_of_object, numbers_of_objects, len(space.keys))

    n = sums_of_classes(images * (counted_runs > 0))
    images_of_runs = sums_of_classes(images * counted_runs)  # an image counts once in each run
    images_of_runs = np.maximum(images_of_runs, 1)  # so as not to divide by 0
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
    """The classes of each model, method and size that lose most accuracy, at most `WORST`.

    Accuracies are means over the OOD datasets as in RI. Classes of two datasets are the same if
    they have the same network outputs; the first dataset gives key and name.

    Args:
        classes: see `class_table`.

    Returns:
        the columns of `class_table`, with the number of datasets in place of dataset and outputs,
        and n over all of them.
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
