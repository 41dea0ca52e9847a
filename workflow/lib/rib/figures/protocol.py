"""Schematic of the benchmark with an example from this run.

Source: arXiv 2410.21582, the schematic of the protocol (per dataset accuracy before, after, change).
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from rib.base.rounding import percent, points, rounded
from rib.config.run import PRETRAINED, images_of
from rib.figures import GAIN, LOSS, Drawn, Labels, counted

NEUTRAL, FAINT = "#252525", "#737373"
NOTE = "accuracy in %; grey: not in RI"
WIDEST = 30  # characters of a label that fit next to the numbers


def draw(
    accuracy: pd.DataFrame,
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    splits: pd.DataFrame | None = None,
    *,
    size: str,
    left_out: Mapping[str, str],
    model: str,
    model_label: str,
    method: str,
    method_label: str,
    target: str,
    targets: Labels,
    datasets: Labels,
) -> Drawn:
    """Boxes from pretraining to mRI; the table in the middle shows accuracies in percent, mean over seeds.

    Args:
        accuracy: columns model, method, target, seed, dataset, n, accuracy.
        ri: columns model, method, target, seed, ri.
        mri: columns model, method, mri, ci_low, ci_high.
        splits: columns dataset, train; None if the whole target is used for training.
        size: size of the training subset.
        left_out: reason by dataset, for datasets other than the target that don't count in RI.
    """
    one = accuracy[accuracy["model"] == model]
    before = one[one["method"] == PRETRAINED].set_index("dataset")["accuracy"]
    after = (
        one[(one["method"] == method) & (one["target"] == target)]
        .groupby("dataset")["accuracy"]
        .mean()
    )
    whole, column = (one, "n") if splits is None else (splits, "train")
    n = images_of(size, int(whole[whole["dataset"] == target][column].iloc[0]))
    shown = (
        pd.DataFrame({"before": before, "after": after, "change": after - before})
        .loc[list(datasets)]
        .reset_index()
    )
    mine = ri[(ri["model"] == model) & (ri["method"] == method)].groupby("target")["ri"].mean()
    total = mri[(mri["model"] == model) & (mri["method"] == method)].iloc[0]

    figure, axes = plt.subplots(figsize=(7.2, 3.5))
    axes.set(xlim=(-0.5, 99.5), ylim=(0, 50))  # with the whole line around the boxes
    axes.axis("off")
    _box(axes, (0, 31, 17, 12), f"pretrained\n{model_label}")
    _box(axes, (0, 9, 17, 14), f"{method_label} on\n{datasets[target]}\n({counted(n, 'image')})")
    _arrow(axes, (8.5, 31), (8.5, 23))
    _arrow(axes, (17, 37), (24, 37), "before")
    _arrow(axes, (17, 16), (24, 16), "after")
    _table(axes, shown, {**left_out, target: "target"}, datasets)
    change = f"mean change on\nthe other OOD datasets\n{points(mine[target])} points"
    _box(axes, (72, 27, 27, 15), f"RI of {datasets[target]}:\n{change}")
    _arrow(axes, (66, 34), (72, 34))
    _arrow(
        axes,
        (85.5, 27),
        (85.5, 20),
        f"repeat for each of {len(targets)} targets" if len(targets) > 1 else "",
    )
    mean = f"mRI: mean over {counted(len(targets), 'target')}\n{points(total['mri'])} points"
    _box(
        axes, (72, 4, 27, 16), f"{mean}\n({points(total['ci_low'])} to {points(total['ci_high'])})"
    )
    return figure, shown


def _box(axes, place: tuple[float, float, float, float], text: str) -> None:
    x, y, width, height = place
    style = {
        "boxstyle": "round,pad=0,rounding_size=1.2",
        "facecolor": "#f0f0f0",
        "edgecolor": NEUTRAL,
    }
    axes.add_patch(FancyBboxPatch((x, y), width, height, **style))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    style = {
        "arrowstyle": "-|>",
        "mutation_scale": 11,
        "color": NEUTRAL,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.add_patch(FancyArrowPatch(start, end, **style))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if start[0] == end[0]:
        axes.text(x + 1, y, text, fontsize=7, ha="left", va="center")
    else:
        axes.text(x, y + 0.7, text, fontsize=7, ha="center", va="bottom")


def _table(axes, shown: pd.DataFrame, left_out: Mapping[str, str], datasets: Labels) -> None:
    """Rows of dataset, accuracy before and after, and change; datasets that don't count are grey, with the reason."""
    step = 38 / (len(shown) + 1)
    columns = {"before": 49, "after": 56, "change": 65}
    axes.text(25, 45, "evaluated on", fontsize=8, fontweight="bold", va="center")
    for name, x in columns.items():
        axes.text(x, 45, name, fontsize=8, fontweight="bold", ha="right", va="center")
    for place, row in enumerate(shown.to_dict("records"), start=1):
        y = 45 - place * step
        why = left_out.get(row["dataset"])
        label = datasets[row["dataset"]] + (f" ({why})" if why else "")
        axes.text(
            25,
            y,
            label,
            fontsize=7 * min(1, WIDEST / len(label)),
            va="center",
            color=FAINT if why else NEUTRAL,
        )
        for name, x in columns.items():
            text = points(row[name]) if name == "change" else percent(row[name])
            change = rounded(row[name]) if name == "change" and row[name] == row[name] else 0
            colour = FAINT if why else GAIN if change > 0 else LOSS if change < 0 else NEUTRAL
            axes.text(x, y, text, fontsize=7, ha="right", va="center", color=colour)
    axes.text(
        65,
        45 - (len(shown) + 1) * step,
        NOTE,
        fontsize=6.5,
        ha="right",
        va="center",
        color="#525252",
    )
