"""Accuracy of merges over targets on datasets that none of their parents was trained on.

No torch. Such a merge has no target, so its gain is no RI: it is a mean over other datasets, and
the parents saw several targets.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import count, read_objects, read_rows_of
from rib.analysis.fit import fit_table
from rib.analysis.ri import ood_accuracies
from rib.analysis.tables import accuracy_table, read_fits

KEY = ["model", "method", "size", "seed"]
NUMBERS = ["datasets", "images", "before", "after", "difference", "ci_low", "ci_high"]


def over_targets_table(
    *,
    rows: Iterable[Path],
    indexes: Iterable[Path],
    manifests: Iterable[Path],
    datasets: Collection[str],
    fit: Mapping,
    replicates: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """The table of merges over targets from their rows and those of the pretrained models.

    Args:
        datasets: those that are scored; rows of others are ignored.
        fit: settings of `fit_table`.

    Returns:
        One row per run: model, method, size, seed, numbers of datasets and images, mean accuracy
        over datasets before and after (percent), difference (percentage points) with its confidence
        interval over objects, unfinished (1 if a parent is, else 0).

    Raises:
        UserError: the runs were evaluated on different kinds of devices.
    """
    fits = read_fits(manifests)
    objects_of_dataset = {
        name: objects for name, objects in read_objects(indexes).items() if name in datasets
    }
    counts = count(read_rows_of(rows), objects_of_dataset)
    weights = object_weights(counts.objects, replicates, seed)
    lines = [
        (
            *state.run.values(KEY),
            len(counts.datasets),
            accuracies.images,
            accuracies.before[0],
            accuracies.after[0],
            *estimate(accuracies.change, confidence),
        )
        for state, accuracies in ood_accuracies(counts, weights).items()
    ]
    table = pd.DataFrame(lines, columns=[*KEY, *NUMBERS])
    fits_of_runs = fit_table(fits, accuracy_table(counts), **fit)
    table = table.merge(fits_of_runs[[*KEY, "unfinished"]], on=KEY)
    return table.assign(unfinished=(table["unfinished"] == "yes").astype(int))
