"""Accuracy of merges over targets on datasets that none of their parents was trained on.

No torch. Such a merge has no target, so its gain is no RI: it is a mean over other datasets, and
the parents saw several targets.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rib.analyses.over_targets.settings import OverTargetsSettings
from rib.statistics.bootstrap import estimate, object_weights
from rib.statistics.counts import RowFiles, count, read_objects, read_rows_of
from rib.statistics.fit import fit_table, mark_columns
from rib.statistics.ri import ood_accuracies
from rib.statistics.tables import accuracy_table, read_fits

KEY = ["model", "method", "size", "seed"]
NUMBERS = ["datasets", "images", "before", "after", "difference", "ci_low", "ci_high"]


def over_targets_table(
    files: RowFiles, manifests: Iterable[Path], settings: OverTargetsSettings
) -> pd.DataFrame:
    """The table of merges over targets from their rows and those of the pretrained models.

    Args:
        files: the rows, of which those of other datasets than the settings' are ignored.
        manifests: of the evaluations that made the rows.
        settings: how the merges are scored.

    Returns:
        One row per run: model, method, size, seed, numbers of datasets and images, mean accuracy
        over datasets before and after (percent), difference (percentage points) with its confidence
        interval over objects, unfinished (1 if a parent is, else 0).

    Raises:
        UserError: the runs were evaluated on different kinds of devices.
    """
    fits = read_fits(manifests, files.methods)
    objects_of_dataset = {
        name: objects
        for name, objects in read_objects(files.indexes).items()
        if name in settings.datasets
    }
    counts = count(read_rows_of(files), objects_of_dataset)
    weights = object_weights(counts.objects, settings.replicates, settings.seed)
    lines = []
    for state, accuracies in ood_accuracies(counts, weights).items():
        difference, low, high = estimate(accuracies.change, settings.confidence)
        line = (
            *state.run.values(KEY),
            len(counts.datasets),
            accuracies.images,
            accuracies.before[0],  # without resampling
            accuracies.after[0],
            difference,
            low,
            high,
        )
        lines.append(line)
    table = pd.DataFrame(lines, columns=[*KEY, *NUMBERS])
    fits_of_runs = fit_table(fits, accuracy_table(counts), settings.fit)
    marks = mark_columns(fits_of_runs)
    table = table.merge(fits_of_runs[[*KEY, *marks]], on=KEY)
    return table.assign(**{column: (table[column] == "yes").astype(int) for column in marks})
