"""CKA and scores of runs at several times in the course of training. No torch."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from rib.base.errors import UserError
from rib.statistics.bootstrap import object_weights
from rib.statistics.cka import PRE_LOGITS, comparison_table
from rib.statistics.counts import RowFiles, count, read_objects, read_rows_of
from rib.statistics.ri import SourceGroups, ood_accuracies
from rib.statistics.tables import GROUP


def epoch_table(
    before: Iterable[Path],
    after: Iterable[Path],
    snapshots: int,
    ood_datasets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """The CKA of the head's input with that of the pretrained model, at several times in training.

    Args:
        before: features of the pretrained models, as for `rib.statistics.cka.comparison_table`.
        after: outputs of the epochs jobs, with the same paths: features by snapshot.
        snapshots: number of snapshots, at equal distances in training.

    Returns:
        The columns of `rib.statistics.cka.comparison_table`, with trained (percent of the steps)
        after dataset.

    Raises:
        UserError: there is no fine-tuned run, too few images, or no `pre_logits` among the
            pretrained features.
    """
    columns_of_snapshots = {}
    for number in range(1, snapshots + 1):
        columns_of_snapshots[f"snapshot{number}"] = {"trained": 100 * number / snapshots}
    features = [*before, *after]
    return comparison_table(features, columns_of_snapshots, PRE_LOGITS, ood_datasets, confidence)


def tradeoff_table(
    files: RowFiles, ood_datasets: Collection[str], source_groups: SourceGroups
) -> pd.DataFrame:
    """Accuracy on the target and mRI in the course of training.

    Snapshots are checkpoints that were saved during the training of a run.

    Args:
        files: rows of pretrained models and of snapshots; alpha of a snapshot is the share of
            training.
        ood_datasets, source_groups: see `ood_accuracies`.

    Returns:
        model, method, size, trained (percent of all steps; at 0 the pretrained model), and means
        over targets and seeds: on_target (percent), mri (percentage points).

    Raises:
        UserError: there are no snapshots, since no fine-tuned run is chosen.
    """
    counts = count(read_rows_of(files), read_objects(files.indexes, source_groups))
    # One replicate, which counts each object once; its index is 0 below.
    weights = object_weights(counts.objects, replicates=0, seed=0)
    accuracies_of_snapshots = ood_accuracies(counts, weights, ood_datasets, source_groups)
    if not accuracies_of_snapshots:
        raise UserError(
            "representations: there are no snapshots, since no fine-tuned run is chosen; choose "
            "methods and targets in config.yaml."
        )
    pretrained_lines = {}  # by run, since all snapshots of a run have the same one
    lines_of_snapshots = []
    for snapshot, accuracies in accuracies_of_snapshots.items():
        group = snapshot.run.values(GROUP)
        pretrained_lines[snapshot.run] = (*group, 0, accuracies.on_target_before[0], 0.0)
        assert snapshot.alpha is not None  # the share of training after which it was saved
        trained = 100 * snapshot.alpha
        lines_of_snapshots.append(
            (*group, trained, accuracies.on_target_after[0], accuracies.change[0])
        )
    columns = [*GROUP, "trained"]
    lines = [*pretrained_lines.values(), *lines_of_snapshots]
    table = pd.DataFrame(lines, columns=[*columns, "on_target", "mri"])
    return table.groupby(columns).mean().reset_index()
