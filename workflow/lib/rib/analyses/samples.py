"""Predictions before and after fine-tuning, image by image: flips, calibration and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rib.base.appearance import GAIN, INK, LOSS
from rib.base.rounding import percent, whole_percent
from rib.base.settings import from_params, to_params
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.statistics.settings import RIStatistics, ri_statistics

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels, ModelAndMethod, Style
    from rib.statistics.inputs import Inputs

FLIPS = Table(
    title="Agreement with the pretrained model",
    question="why",
    note=(
        "Percentage of images, averaged over targets, seeds and the datasets other than each "
        "target: same prediction before and after, right before and wrong after, wrong before and "
        "right after. Wrong to right minus right to wrong is mRI. Confidence intervals are over "
        "objects only, with any number of seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Same prediction", "agreement", interval=("agreement_low", "agreement_high")),
        Column(
            "Right to wrong",
            "right_to_wrong",
            interval=("right_to_wrong_low", "right_to_wrong_high"),
        ),
        Column(
            "Wrong to right",
            "wrong_to_right",
            interval=("wrong_to_right_low", "wrong_to_right_high"),
        ),
    ],
)
MEAN_SCORES = Table(
    title="Top-5 accuracy, likelihood, Brier score, macro F1 and worst group",
    question="why",
    note=(
        "Means over targets, seeds and the datasets other than each target. NLL: negative "
        "log-likelihood of the label in nats; Brier: squared distance between probabilities and "
        "label, 0 to 2; lower is better for both. Macro F1: mean over classes of the harmonic mean "
        "of precision and recall. Worst group: lowest accuracy over the groups of a dataset's "
        "images. Confidence intervals are of the change and over objects only, with any number of "
        "seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Top-1 before (%)", "top1_before"),
        Column("Top-1 after (%)", "top1_after"),
        Column(
            "Top-1 change",
            "top1_change",
            form="signed",
            interval=("top1_change_low", "top1_change_high"),
        ),
        Column("Top-5 before (%)", "top5_before"),
        Column("Top-5 after (%)", "top5_after"),
        Column(
            "Top-5 change",
            "top5_change",
            form="signed",
            interval=("top5_change_low", "top5_change_high"),
        ),
        Column("NLL before", "nll_before", form="decimals"),
        Column("NLL after", "nll_after", form="decimals"),
        Column(
            "NLL change",
            "nll_change",
            form="decimals",
            interval=("nll_change_low", "nll_change_high"),
        ),
        Column("Brier before", "brier_before", form="decimals"),
        Column("Brier after", "brier_after", form="decimals"),
        Column(
            "Brier change",
            "brier_change",
            form="decimals",
            interval=("brier_change_low", "brier_change_high"),
        ),
        Column("Macro F1 before (%)", "macro_f1_before"),
        Column("Macro F1 after (%)", "macro_f1_after"),
        Column("Macro F1 change", "macro_f1_change", form="signed"),
        Column("Worst group before (%)", "worst_group_before"),
        Column("Worst group after (%)", "worst_group_after"),
        Column("Worst group change", "worst_group_change", form="signed"),
    ],
)
RI_SCORES = Table(
    title="RI of other scores",
    question="survived",
    note=(
        "RI of accuracy, and the same of the scores that the family asks for: the mean change "
        "over the datasets other than the target, in percentage points, a mean over seeds; of the "
        "worst group over those datasets that have groups. Target mean: over all targets. "
        "Confidence intervals are over objects only, with any number of seeds."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Target", "target"),
        Column("Size", "size", form="text"),
        Column("RI", "ri", form="signed", interval=("ri_low", "ri_high")),
        Column(
            "RI of macro F1",
            "ri_macro_f1",
            form="signed",
            interval=("ri_macro_f1_low", "ri_macro_f1_high"),
        ),
        Column(
            "RI of the worst group",
            "ri_worst_group",
            form="signed",
            interval=("ri_worst_group_low", "ri_worst_group_high"),
        ),
    ],
)
CAPTION = """\
Images of the other datasets that fine-tuning flipped, in percent: right before and wrong after
(bars to the left of 0), wrong before and right after (to the right); beside them the share with the
same prediction, right or wrong (dots). The right bar minus the left one is mRI; where both are
long, much was traded for a small difference of means. Whiskers are bootstrap confidence intervals
over objects; targets, datasets and trained networks are fixed.
"""
# Side and hatching distinguish them without colour.
TO_WRONG: dict[str, Any] = {"color": LOSS, "hatch": None, "label": "right before, wrong after"}
TO_RIGHT: dict[str, Any] = {"color": GAIN, "hatch": "///", "label": "wrong before, right after"}
ROOM = 0.15  # for a number on each side, as a share of both whiskers
NUMBER: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7}
EDGES: dict[str, Any] = {
    "edgecolor": INK,
    "linewidth": 0.6,
    "error_kw": {"ecolor": INK, "elinewidth": 1, "capsize": 2},
}
DOT: dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "markersize": 4,
    "linestyle": "none",
    "elinewidth": 1,
    "capsize": 2,
}


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figure that compare predictions image by image.

    Curves (several networks per run) are left out. One job reads all rows: with a job per run,
    start-up would take longer than reading.
    """
    runs = [run for run in grid.runs() if run.method not in labels.curves]
    shown_tables = {"flips": FLIPS, "mean_scores": MEAN_SCORES}
    if grid.family.scores:
        shown_tables["ri_scores"] = RI_SCORES
    real_labels = [name for name, dataset in grid.datasets.items() if dataset.real_labels]
    groups = {name: dataset.groups for name, dataset in grid.datasets.items() if dataset.groups}
    return Analysis(
        inputs={
            "rows": paths.rows(runs),
            "indexes": paths.indexes(),
            "classes": paths.classes(),
            "fit": paths.table("fit"),
        },
        params={
            "methods": list(dict.fromkeys(run.method for run in runs)),
            "ri": to_params(ri_statistics(grid)),
            "real_labels": real_labels,
            "groups": groups,
            "scores": grid.family.scores,
        },
        makes=["samples.csv", "scores.csv", *(f"{name}.csv" for name in shown_tables)],
        tables=shown_tables,
        # With a line for each run and dataset, thousands in the paper's grid, they are only linked.
        files={
            "Agreement, calibration and scores by run and dataset": ["samples.csv", "scores.csv"]
        },
        figures={
            "flips": Figure(
                question="why",
                caption=CAPTION,
                inputs={"flips": paths.table("flips")},
                params=labels.means,
                marks_runs=True,
            )
        },
    )


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: samples, scores, flips, mean_scores and perhaps ri_scores."""
    from rib.statistics.samples import sample_tables

    params = inputs.params
    return sample_tables(
        inputs.rows(params["methods"]),
        inputs.paths("classes"),
        ri=from_params(RIStatistics, params["ri"]),
        real_labels=params["real_labels"],
        groups=params["groups"],
        scores=params["scores"],
    )


def draw_flips(
    flips: pd.DataFrame,
    *,
    models: Labels,
    methods: Labels,
    confidence: float,
    underfitted: Collection[ModelAndMethod] = (),
) -> Drawn:
    """Draw how many images fine-tuning made wrong (left) and right (right), and how many agree.

    All are percent of the other datasets' images, with confidence intervals.

    Args:
        flips: columns model, method, and agreement, right_to_wrong, wrong_to_right, each with _low
            and _high (percent).
        models, methods: labels, {"ft": "FT"}.
        underfitted: pairs to mark, {("net", "ft")}, with low accuracy on training images.
    """
    import matplotlib.pyplot as plt

    from rib.figures import label_of_run
    from rib.figures._panels import name_rows

    shown_rows = flips[flips["model"].isin(list(models)) & flips["method"].isin(list(methods))]
    size = (7.2, 1.1 + len(models) * (0.45 + 0.34 * len(methods)))
    figure, panels = plt.subplots(
        len(models), 2, figsize=size, squeeze=False, sharex="col", width_ratios=[3, 1.6]
    )
    for (flip_axes, agreement_axes), (model, label) in zip(panels, models.items(), strict=True):
        rows = shown_rows[shown_rows["model"] == model].set_index("method")
        # Some methods are for one type of model only.
        methods_of_model = [method for method in methods if method in rows.index]
        rows = rows.loc[methods_of_model]
        _draw_flips(flip_axes, rows, "right_to_wrong", TO_WRONG, side=-1)
        _draw_flips(flip_axes, rows, "wrong_to_right", TO_RIGHT, side=1)
        flip_axes.axvline(0, color="black", linewidth=0.8)
        _draw_agreement(agreement_axes, rows)
        flip_axes.set_title(label, loc="left")
        method_labels = [
            label_of_run(methods[method], (model, method), underfitted)
            for method in methods_of_model
        ]
        name_rows(flip_axes, method_labels)
        name_rows(agreement_axes, [""] * len(methods_of_model))
    _set_flip_limits(panels[0, 0], shown_rows)
    panels[0, 1].set_xlim(0, 109)
    panels[-1, 0].xaxis.set_major_formatter(_without_sign)
    panels[-1, 0].set_xlabel("flipped images (%)")
    panels[-1, 1].set_xlabel("same prediction (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.supxlabel(
        f"means over the other datasets; whiskers: {confidence:.0%} confidence intervals over "
        "objects",
        fontsize=7,
    )
    return figure, shown_rows.reset_index(drop=True)


def _without_sign(x: float, _position: int) -> str:
    """Tick label, `12` for -12.0 left of 0; Matplotlib also passes the tick's position."""
    return f"{abs(x):g}"


def _set_flip_limits(axes: Axes, shown_rows: pd.DataFrame) -> None:
    """Set the limits of the axis, with room for the numbers beside the whiskers."""
    to_left = max(1, shown_rows["right_to_wrong_high"].max())
    to_right = max(1, shown_rows["wrong_to_right_high"].max())
    room = ROOM * (to_left + to_right)
    axes.set_xlim(-to_left - room, to_right + room)


def _draw_flips(axes: Axes, rows: pd.DataFrame, flip: str, style: Style, side: int) -> None:
    """Draw bars with numbers; `side` is -1 for left or 1 for right of 0."""
    import numpy as np

    rows_y = np.arange(len(rows))
    lengths = rows[flip]
    whiskers = _whiskers(rows, flip)[::side]  # on the left, low and high ends swap
    axes.barh(rows_y, side * lengths, 0.7, xerr=whiskers, **EDGES, **style)
    align = "left" if side > 0 else "right"
    for y, length, end in zip(rows_y, lengths, rows[f"{flip}_high"], strict=True):
        axes.annotate(
            percent(length), (side * end, y), (side * 3, 0), ha=align, va="center", **NUMBER
        )


def _draw_agreement(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw for each method the percentage of equal predictions: dot, whiskers, number."""
    import numpy as np

    rows_y = np.arange(len(rows))
    axes.errorbar(rows["agreement"], rows_y, xerr=_whiskers(rows, "agreement"), **DOT)
    for y, agreement in zip(rows_y, rows["agreement"], strict=True):
        # Right of a large value, the number would not fit into the panel.
        align = "right" if agreement > 75 else "left"
        axes.annotate(
            whole_percent(agreement), (agreement, y), (0, 4), ha=align, va="bottom", **NUMBER
        )


def _whiskers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Lengths (2, n) of lower and upper whiskers, as Matplotlib takes them."""
    import numpy as np

    lower = rows[column] - rows[f"{column}_low"]
    upper = rows[f"{column}_high"] - rows[column]
    return np.stack([lower, upper])
