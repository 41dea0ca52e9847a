"""mRI with and without adversarially filtered datasets. No torch.

Such a dataset has the images that some network got wrong (ImageNet-A: Hendrycks et al. 2021, arXiv
1907.07174), so accuracy on it is no fair sample of any kind of images. A network that resembles the
filter starts low there, and nearly any change of its weights raises its accuracy (regression to the
mean). Another network may lose there what it loses on images like those that were filtered. So the
mean is shown with and without such datasets.
"""

from pathlib import Path

import pandas as pd

from rib.analyses.filtered.settings import FilteredSettings
from rib.analysis.bootstrap import object_weights, over_runs
from rib.analysis.counts import Counts, read_counts
from rib.analysis.ri import ood_accuracies
from rib.analysis.tables import GROUP, accuracies_of_methods, values_of_runs

NUMBERS = [
    "targets",
    "seeds",
    "mri",
    "ci_low",
    "ci_high",
    "without",
    "without_low",
    "without_high",
    "difference",
    "difference_low",
    "difference_high",
]


def filtered_table(counts: Path, settings: FilteredSettings) -> pd.DataFrame:
    """mRI of each model, method and size, over all datasets and without filtered ones.

    Args:
        counts: of the grid, see `rib.analysis.counts.write_counts`.
        settings: which datasets are filtered.

    Returns:
        model, method, size, targets, seeds, mri with its confidence interval, the same without
        filtered datasets (without, without_low, without_high), and the difference of the two,
        without minus with, on the same replicates (percentage points).
    """
    rows: list[tuple[object, ...]] = []
    for counts_of_model in read_counts(counts):
        rows += _rows_of_model(counts_of_model, settings)
    return pd.DataFrame(rows, columns=[*GROUP, *NUMBERS])


def _rows_of_model(counts: Counts, settings: FilteredSettings) -> list[tuple[object, ...]]:
    """Rows of `filtered_table` of one model."""
    statistics = settings.ri
    weights = object_weights(counts.objects, statistics.replicates, statistics.seed)
    not_filtered = [name for name in statistics.ood_datasets if name not in settings.filtered]
    all_datasets = ood_accuracies(
        counts, weights, statistics.ood_datasets, statistics.source_groups
    )
    others = ood_accuracies(counts, weights, not_filtered, statistics.source_groups)
    accuracies_without = accuracies_of_methods(others)
    accuracies_with = accuracies_of_methods(all_datasets)
    rows: list[tuple[object, ...]] = []
    for group, by_target in accuracies_with.items():
        mri = values_of_runs(list(by_target.values()), "change")
        mri_without = values_of_runs(list(accuracies_without[group].values()), "change")
        targets, seeds, _ = mri.shape
        rows.append(
            (
                *group,
                targets,
                seeds,
                *over_runs(mri, statistics.confidence),
                *over_runs(mri_without, statistics.confidence),
                *over_runs(mri_without - mri, statistics.confidence),
            )
        )
    return rows
