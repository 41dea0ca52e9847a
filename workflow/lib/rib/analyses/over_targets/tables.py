"""The tables of this analysis."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from rib.base.params import from_params
from rib.statistics.bootstrap import estimate, object_weights
from rib.statistics.counts import RowFiles, count, read_objects, read_rows_of
from rib.statistics.fit import fit_table, mark_columns
from rib.statistics.inputs import Inputs
from rib.statistics.ri import ood_accuracies
from rib.statistics.statistics_settings import FitRule
from rib.statistics.tables import accuracy_table, read_fits

KEY = ["model", "method", "size", "seed"]
NUMBERS = ["datasets", "images", "before", "after", "difference", "ci_low", "ci_high"]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Table merges_over_targets to write: accuracy before and after merging."""
    params = inputs.params
    merges = over_targets_table(
        inputs.rows(params["methods"]),
        inputs.paths("evaluations"),
        datasets=params["datasets"],
        fit=from_params(FitRule, params["fit"]),
        replicates=params["replicates"],
        confidence=params["confidence"],
        seed=params["seed"],
    )
    return {"merges_over_targets": merges}


def over_targets_table(
    files: RowFiles,
    manifests: Iterable[Path],
    *,
    datasets: Collection[str],
    fit: FitRule,
    replicates: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Accuracy of pretrained models (before), and of merges of their runs on different targets.

    Args:
        files: a row per scored image of merges and pretrained models; rows of other datasets are
            ignored.
        manifests: of the evaluations that made the rows; they state devices and the runs' fit.
        datasets: names of datasets that no merged network was trained on.
        fit: rule for marking underfitted runs.
        replicates, seed: of the bootstrap.
        confidence: coverage of intervals, 0 to 1.

    Returns:
        One row per run: model, method, size, seed, numbers of datasets and images, mean accuracy
        over datasets before and after (percent), difference (percentage points) with its confidence
        interval over objects, underfitted (1 if a merged network is, else 0).
    """

    fits = read_fits(manifests, files.methods)
    objects_of_dataset = {
        name: objects for name, objects in read_objects(files.indexes).items() if name in datasets
    }
    counts = count(read_rows_of(files), objects_of_dataset)
    weights = object_weights(counts.objects, replicates, seed)
    lines = []
    for state, accuracies in ood_accuracies(counts, weights).items():
        difference, low, high = estimate(accuracies.change, confidence)
        line = (
            *state.run.values(KEY),
            len(counts.datasets),
            accuracies.images,
            accuracies.before[0],  # index 0: without resampling
            accuracies.after[0],
            difference,
            low,
            high,
        )
        lines.append(line)
    table = pd.DataFrame(lines, columns=[*KEY, *NUMBERS])
    fits_of_runs = fit_table(fits, accuracy_table(counts), fit)
    marks = mark_columns(fits_of_runs)
    table = table.merge(fits_of_runs[[*KEY, *marks]], on=KEY)
    return table.assign(**{column: (table[column] == "yes").astype(int) for column in marks})
