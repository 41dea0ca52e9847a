"""Accuracy by class, and the classes that lose most. No torch."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from rib.analysis.counts import Counts, Indices
from rib.analysis.ri import CountedObjects, on_other_datasets
from rib.config.label_space import LabelSpace

WORST = 10  # classes of a model, method and size
GROUP = ["model", "method", "size"]
ACCURACIES = ["before", "after", "change"]
COLUMNS = [*GROUP, "dataset", "class", "name", "outputs", "n", *ACCURACIES]


def class_table(
    counts: Counts, spaces: Mapping[str, LabelSpace], source_groups: Mapping[str, str] | None
) -> pd.DataFrame:
    """Accuracy of each model, method and size by dataset and class, with the columns `COLUMNS`.

    Accuracies (percent) are over the images of the class in all runs whose target is another
    dataset. Left out are classes without images, and states on a curve, of which a run has several.

    Args:
        spaces: label space of each dataset.
        source_groups: for leak-free results, source group by dataset, as for
            `rib.analysis.ri.ood_accuracies`; None for all images.
    """
    pretrained_states: dict[str, int] = {}  # by model, its index
    states_of_group: dict[tuple[str, ...], list[int]] = {}
    for i, state in enumerate(counts.states):
        if state.is_pretrained:
            pretrained_states[state.run.model] = i
        elif not state.is_on_curve:
            states_of_group.setdefault(state.run.values(GROUP), []).append(i)

    @cache
    def counted_objects(target: str) -> CountedObjects:
        """By dataset, which of its objects count in runs that are fine-tuned on a target."""
        return on_other_datasets(
            counts.object_indices,
            target,
            ood_datasets=None,  # all, also those in distribution
            source_groups=source_groups,
            shared=counts.shared,
        )

    tables = []
    for group, states in states_of_group.items():
        model, method, size = group
        for dataset in counts.datasets:
            runs = []
            for i in states:
                target = counts.states[i].run.target
                objects_by_dataset = counted_objects(target)
                # Missing are the target itself and, in leak-free results, datasets that were made
                # of the same source images as the target, so that no object counts.
                if dataset in objects_by_dataset:
                    runs.append((i, objects_by_dataset[dataset]))
            pretrained = pretrained_states[model]
            columns = _columns_of_classes(counts, dataset, spaces[dataset], runs, pretrained)
            described = {"model": model, "method": method, "size": size, "dataset": dataset}
            classes = len(columns["n"])
            for name, description in described.items():
                columns[name] = np.full(classes, description, object)
            tables.append(columns)
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    # A data frame is made once: making one of each table would take longer than the counting.
    return pd.DataFrame(
        {column: np.concatenate([columns[column] for columns in tables]) for column in COLUMNS}
    )


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
    images = counts.images[dataset]
    correct = counts.correct[dataset]
    counted_runs = np.zeros(len(images))  # of each object: runs in which it counts
    correct_after = np.zeros(len(images))  # of each object, over these runs
    for i, objects in runs:
        counted_runs[objects] += 1
        correct_after[objects] += correct[i][objects]

    def sums_of_classes(of_objects: np.ndarray) -> np.ndarray:
        return np.bincount(counts.labels[dataset], of_objects, len(space.keys))

    n = sums_of_classes(images * (counted_runs > 0))
    images_of_runs = np.maximum(sums_of_classes(images * counted_runs), 1)
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
    groups = ood_classes.groupby([*GROUP, "outputs"], sort=False, as_index=False)
    aggregations = {
        "class": ("class", "first"),
        "name": ("name", "first"),
        "datasets": ("dataset", "size"),
        "n": ("n", "sum"),
    }
    for column in ACCURACIES:
        aggregations[column] = (column, "mean")
    means = groups.agg(**aggregations).drop(columns="outputs")
    losing = means[means["change"] < 0].sort_values("change", kind="stable")
    worst = losing.groupby(GROUP, sort=False).head(WORST)
    return classes[GROUP].drop_duplicates().merge(worst, on=GROUP)
