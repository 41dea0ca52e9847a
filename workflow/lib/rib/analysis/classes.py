"""Accuracy by class, and the classes that lose most. No torch."""

from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
import pandas as pd

from rib.analysis.counts import Counts
from rib.analysis.ri import on_other_datasets
from rib.config.label_space import LabelSpace
from rib.config.run import PRETRAINED

WORST = 10
GROUP = ["model", "method", "size"]
COLUMNS = [*GROUP, "dataset", "class", "name", "outputs", "n", "before", "after", "change"]


def class_table(
    counts: Counts, spaces: Mapping[str, LabelSpace], source_groups: Mapping | None
) -> pd.DataFrame:
    """One row per model, method, size, dataset and class that has images, with the columns `COLUMNS`.

    Accuracies (percent) are over the class's images in all runs whose target is another dataset, without curves. For
    leak-free results, give source groups as to `rib.analysis.ri.ood_accuracies`.
    """
    start = {state[0]: place for place, state in enumerate(counts.states) if state[1] == PRETRAINED}
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, (model, method, _, size, _, alpha) in enumerate(counts.states):
        if alpha is None and method != PRETRAINED:
            groups.setdefault((model, method, size), []).append(place)
    others = cache(
        lambda target: on_other_datasets(counts.places, target, None, source_groups, counts.shared)
    )
    outputs = {
        dataset: [" ".join(map(str, row)) for row in spaces[dataset].indices]
        for dataset in counts.datasets
    }
    parts = []
    for group, places in groups.items():
        for dataset in counts.datasets:
            space, correct, images = (
                spaces[dataset],
                counts.correct[dataset],
                counts.images[dataset],
            )
            times, right = np.zeros(
                (2, len(images))
            )  # of each object: runs in which it counts, and right answers
            for place in places:
                if (kept := others(counts.states[place][2]).get(dataset)) is not None:
                    times[kept] += 1
                    right[kept] += correct[place][kept]
            sums = (images * (times > 0), images * times, correct[start[group[0]]] * times, right)
            n, shown, was, now = (
                np.bincount(counts.labels[dataset], own, len(space.keys)) for own in sums
            )
            before, after = (100 * own / np.maximum(shown, 1) for own in (was, now))
            known = [
                np.full(len(n), own, object)
                for own in (*group, dataset, space.keys, space.names, outputs[dataset])
            ]
            parts.append(
                [own[n > 0] for own in (*known, n.astype(int), before, after, after - before)]
            )
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    # One table of all: making one of each part would take longer than the counting.
    return pd.DataFrame(
        dict(zip(COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    )


def worst_classes(classes: pd.DataFrame, ood_datasets: Collection[str]) -> pd.DataFrame:
    """The up to `WORST` classes per model, method and size that lose most accuracy, mean over the OOD datasets as in RI.

    Classes of two datasets are the same if they have the same network outputs; the first dataset gives key and name.
    Columns: those of `class_table`, with the number of datasets in place of dataset and outputs, and n over all of them.
    """
    found = classes[classes["dataset"].isin(ood_datasets)].groupby(
        [*GROUP, "outputs"], sort=False, as_index=False
    )
    named = {
        "class": ("class", "first"),
        "name": ("name", "first"),
        "datasets": ("dataset", "size"),
        "n": ("n", "sum"),
    }
    found = found.agg(**named, **{name: (name, "mean") for name in COLUMNS[-3:]}).drop(
        columns="outputs"
    )
    worst = (
        found[found["change"] < 0]
        .sort_values("change", kind="stable")
        .groupby(GROUP, sort=False)
        .head(WORST)
    )
    return classes[GROUP].drop_duplicates().merge(worst, on=GROUP)
