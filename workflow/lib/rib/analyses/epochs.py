"""Representations and scores in the course of training.

CKA of the head's input with the pretrained model's, and accuracy on the target with RI. Runs are
trained once more to keep their weights at ten times (rules/train.smk), so that settings of ordinary
runs stay unchanged.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rib.base.errors import UserError
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.compared_runs import SNAPSHOTS, compared_runs, megabytes_of_kernels
from rib.config.run import PRETRAINED
from rib.config.shared_sources import leak_free_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import pandas as pd

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, Styles
    from rib.statistics.counts import RowFiles
    from rib.statistics.inputs import Inputs
    from rib.statistics.objects import SourceGroups

CKA_EPOCHS = Table(
    title="Similarity of the head's input in the course of training",
    question="why",
    note=(
        "Debiased linear CKA with the pretrained model on the same images; 'others' is the mean "
        "over all datasets other than the target."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size"),
        Column("Seed", "seed"),
        Column("Dataset", "dataset"),
        Column("Steps (%)", "trained", form="number"),
        Column("CKA", "cka", form="decimals", interval=("ci_low", "ci_high")),
        Column("Images", "n"),
    ],
)
TRADEOFF_EPOCHS = Table(
    title="Accuracy on the target and robustness in the course of training",
    question="why",
    note=(
        "Accuracy on the target, and mRI in percentage points, at ten times in training of the "
        "runs whose snapshots were kept; at 0 % of the steps the pretrained model. Means over "
        "targets and seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size"),
        Column("Steps (%)", "trained", form="number"),
        Column("On the target (%)", "on_target", form="number"),
        Column("mRI", "mri", form="signed"),
    ],
)
CAPTION_OF_CKA = """\
When fine-tuning changes what the head reads: debiased CKA with the pretrained model's features at
ten times in training, on the target and, as the mean, on the other datasets. At 0 % is the
pretrained model itself.
"""
CAPTION_OF_TRADEOFF = """\
The way from the pretrained model (star) to the fine-tuned ones, scored at ten times in training:
across, accuracy on the target; up, mRI of the targets named below. Where two lines pass over the
same accuracy on the target, the methods fit equally well, and the higher line kept more robustness;
end points alone also compare how far training got. Lines have no intervals; the figure and the
table of mRI have intervals of the finished runs.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figures of runs at ten times in training.

    Config's `representations` chooses the runs.
    """
    pretrained = paths.pretrained_runs.values()
    runs = [run for run in compared_runs(grid) if grid.methods[run.method].trains]
    of_runs = labels.of_compared_runs
    methods = {
        name: style for name, style in of_runs["methods"].items() if grid.methods[name].trains
    }
    return Analysis(
        inputs={
            "before": paths.features(pretrained),
            "after": paths.features(runs, "epochs"),
            "rows": [*paths.rows(pretrained), *paths.rows(runs, "evaluate_snapshots")],
            "indexes": paths.indexes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys([PRETRAINED, *(run.method for run in runs)])),
            "snapshots": len(SNAPSHOTS),
            "ood_datasets": grid.ood,
            "source_groups": leak_free_groups(grid),
            "confidence": labels.confidence,
        },
        makes=["cka_epochs.csv", "tradeoff_epochs.csv"],
        without_fit=["tradeoff_epochs"],
        tables={"cka_epochs": CKA_EPOCHS, "tradeoff_epochs": TRADEOFF_EPOCHS},
        figures={
            "cka_epochs": Figure(
                question="why",
                caption=CAPTION_OF_CKA,
                inputs={"cka_epochs": paths.table("cka_epochs")},
                params={**of_runs, "methods": methods},
            ),
            "tradeoff_epochs": Figure(
                question="why",
                caption=CAPTION_OF_TRADEOFF,
                inputs={"tradeoff_epochs": paths.table("tradeoff_epochs")},
                params={
                    "models": of_runs["models"],
                    "methods": methods,
                    "targets": of_runs["targets"],
                    "accuracy": labels.accuracy_on_target,
                },
            ),
        },
        on_demand=True,
        megabytes=megabytes_of_kernels(grid.config["representations"]["images"]),
    )


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
    from rib.statistics.cka import PRE_LOGITS, comparison_table

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
    import pandas as pd

    from rib.statistics.bootstrap import object_weights
    from rib.statistics.counts import count, read_objects, read_rows_of
    from rib.statistics.ri import ood_accuracies
    from rib.statistics.tables import GROUP

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


def draw_cka_epochs(
    cka_epochs: pd.DataFrame, *, models: Labels, methods: Styles, targets: Labels, confidence: float
) -> Drawn:
    """Draw similarity (CKA) to the pretrained model's features against the share of steps.

    Panels are models by two columns: on the target, and the mean over other datasets.

    Args:
        cka_epochs: columns model, method, target, seed, dataset, trained, cka, ci_low, ci_high,
            averaged over targets and seeds.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
    """
    import pandas as pd

    from rib.figures._cka import draw_lines, note

    first_snapshots = cka_epochs[cka_epochs["trained"] == cka_epochs["trained"].min()]
    # The pretrained model equals itself.
    before_training = first_snapshots.assign(trained=0.0, cka=1.0, ci_low=1.0, ci_high=1.0)
    with_start = pd.concat([before_training, cka_epochs])
    figure, _, shown_rows = draw_lines(with_start, ["trained"], models, methods)
    figure.supxlabel(f"Steps of fine-tuning (%); {note(targets, confidence)}", fontsize=8)
    return figure, shown_rows


def draw_tradeoff_epochs(
    tradeoff_epochs: pd.DataFrame,
    *,
    models: Labels,
    methods: Styles,
    targets: Labels,
    accuracy: str,
) -> Drawn:
    """Draw mRI against accuracy on the target in the course of training.

    Each method's line begins at the pretrained model.

    Args:
        tradeoff_epochs: columns model, method, trained (percent of steps), on_target, mri.
        models, targets: labels, {"net": "Net"}.
        methods: {"ft": {"label": "FT", "colour": "#ff0000", "marker": "o"}}.
        accuracy: label of accuracy on the target.
    """
    import numpy as np
    import pandas as pd

    from rib.analyses.tradeoff import COLUMNS, draw_panels

    start = tradeoff_epochs[tradeoff_epochs["trained"] == 0].assign(method=PRETRAINED)
    end = tradeoff_epochs[tradeoff_epochs["trained"] == 100]
    points = pd.concat([start, end]).reindex(columns=COLUMNS)
    lines = tradeoff_epochs.assign(alpha=np.nan)  # NaN writes no alphas beside the lines
    target_labels = ", ".join(targets.values())
    note = f"fine-tuned on {target_labels}; dots at each tenth of the steps"
    below = f"{accuracy} (%)\n{textwrap.fill(note, 60)}"
    return draw_panels(points, lines, models, methods, below), tradeoff_epochs
