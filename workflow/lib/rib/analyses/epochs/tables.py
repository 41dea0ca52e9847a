"""The tables of this analysis."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from rib.base.errors import UserError
from rib.statistics.bootstrap import object_weights
from rib.statistics.cka import PRE_LOGITS, comparison_table
from rib.statistics.counts import RowFiles, count, read_objects, read_rows_of
from rib.statistics.inputs import Inputs
from rib.statistics.objects import SourceGroups
from rib.statistics.ri import ood_accuracies
from rib.statistics.tables import GROUP


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write, by time: cka_epochs (similarity), tradeoff_epochs (accuracy)."""
    params = inputs.params
    similarity = epoch_table(
        before=inputs.paths("before"),
        after=inputs.paths("after"),
        snapshots=params["snapshots"],
        ood_datasets=params["ood_datasets"],
        confidence=params["confidence"],
    )
    scores = tradeoff_table(
        inputs.rows(params["methods"]), params["ood_datasets"], params["source_groups"]
    )
    return {"cka_epochs": similarity, "tradeoff_epochs": scores}


def epoch_table(
    *,
    before: Iterable[Path],
    after: Iterable[Path],
    snapshots: int,
    ood_datasets: Collection[str],
    confidence: float,
) -> pd.DataFrame:
    """CKA of the head's input with the pretrained model's (1: the same), at times in training.

    Args:
        before: features of the pretrained models, .../<seed>/<dataset>.safetensors.
        after: features of snapshots, outputs of the epochs jobs with the same paths.
        snapshots: number of snapshots, at equal distances in training.
        ood_datasets: datasets that `others` averages over, except the target.
        confidence: coverage of intervals, 0 to 1.

    Returns:
        model, method, target, size, seed, dataset, trained (percent of the steps), n (images), cka,
        ci_low, ci_high, biased (plain estimator).

    Raises:
        UserError: Fine-tuned runs or `pre_logits` are missing, or there are too few images.
    """
    columns_of_snapshots = {}
    for number in range(1, snapshots + 1):
        columns_of_snapshots[f"snapshot{number}"] = {"trained": 100 * number / snapshots}
    features = [*before, *after]
    # PRE_LOGITS, the pretrained model's head input, is what snapshots are compared with.
    return comparison_table(features, columns_of_snapshots, PRE_LOGITS, ood_datasets, confidence)


def tradeoff_table(
    files: RowFiles, ood_datasets: Collection[str], source_groups: SourceGroups
) -> pd.DataFrame:
    """Accuracy on the target and mRI (change of accuracy elsewhere) in the course of training.

    Args:
        files: rows of pretrained models and of snapshots (checkpoints from within a training); a
            snapshot's alpha is the finished share of training.
        ood_datasets: datasets that count in RI.
        source_groups: by dataset, such as {"flat": "fluent"}; images that share a source with the
            target's don't count in RI. None if all count.

    Returns:
        model, method, size, trained (percent of all steps; at 0 the pretrained model), and means
        over targets and seeds: on_target (percent), mri (percentage points).

    Raises:
        UserError: No fine-tuned run is chosen.
    """

    counts = count(read_rows_of(files), read_objects(files.indexes, source_groups))
    # One replicate that counts each object once; index 0 below selects it.
    weights = object_weights(counts.objects, replicates=0, seed=0)
    accuracies_of_snapshots = ood_accuracies(counts, weights, ood_datasets, source_groups)
    if not accuracies_of_snapshots:
        raise UserError(
            "representations: there are no snapshots, since no fine-tuned run is chosen; choose "
            "methods and targets in config.yaml."
        )
    pretrained_lines = {}  # by run, whose snapshots all have the same line
    lines_of_snapshots = []
    for snapshot, accuracies in accuracies_of_snapshots.items():
        group = snapshot.run.values(GROUP)  # model, method, size
        pretrained_lines[snapshot.run] = (*group, 0, accuracies.on_target_before[0], 0.0)
        assert snapshot.alpha is not None  # a snapshot's share of training
        trained = 100 * snapshot.alpha
        lines_of_snapshots.append(
            (*group, trained, accuracies.on_target_after[0], accuracies.change[0])
        )
    columns = [*GROUP, "trained"]
    lines = [*pretrained_lines.values(), *lines_of_snapshots]
    table = pd.DataFrame(lines, columns=[*columns, "on_target", "mri"])
    return table.groupby(columns).mean().reset_index()
