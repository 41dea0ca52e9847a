"""Draws the figure `protocol`."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.textpath import TextPath

from rib.base.appearance import DARK_GREY, GAIN, GREY, INK, LOSS
from rib.base.rounding import percent, points, rounded
from rib.figures import Drawn, Labels, counted
from rib.schema.run import PRETRAINED, images_of

NOTE = "accuracy in %; grey: not in RI"
FONT_SIZE = 7  # of rows, in points
LABEL_WIDTH = 90  # room beside the numbers, in points
# Table in the middle: left end of labels, right ends of numbers, top and height.
LABEL_X = 25
NUMBER_X = {"before": 49, "after": 56, "change": 65}
TABLE_TOP = 45
TABLE_HEIGHT = 38


def draw_protocol(
    accuracy: pd.DataFrame,
    ri: pd.DataFrame,
    mri: pd.DataFrame,
    data: pd.DataFrame | None = None,
    *,
    example: Mapping[str, str],
    left_out: Mapping[str, str],
    targets: Labels,
    datasets: Labels,
) -> Drawn:
    """Draw how mRI comes about, with one run's numbers: boxes from pretraining to mRI.

    In the middle are accuracies in percent, means over seeds.

    Args:
        accuracy: columns model, method, target, seed, dataset, n, accuracy.
        ri: columns model, method, target, seed, ri.
        mri: columns model, method, mri, ci_low, ci_high.
        data: columns dataset, train (images); None if the whole target is used for training.
        targets, datasets: labels, {"noto": "Noto"}.
        example: model, model_label, method, method_label, target, and size of the training subset.
        left_out: why datasets other than the target don't count: {"noto_blur": "variant"}.
    """

    model = example["model"]
    method = example["method"]
    target = example["target"]
    of_model = accuracy[accuracy["model"] == model]
    shown_rows = _changes(of_model, method, target, datasets)
    images_of_target = _training_images(of_model, data, target)
    n = images_of(example["size"], images_of_target)
    ri_of_method = ri[(ri["model"] == model) & (ri["method"] == method)]
    ri_of_target = ri_of_method.groupby("target")["ri"].mean()[target]
    mri_of_method = mri[(mri["model"] == model) & (mri["method"] == method)].iloc[0]

    figure, axes = plt.subplots(figsize=(7.2, 3.5))
    axes.set(xlim=(-0.5, 99.5), ylim=(0, 50))  # keeps the boxes' outlines within the axes
    axes.axis("off")
    _draw_box(axes, (0, 31), (17, 12), f"pretrained\n{example['model_label']}")
    fine_tuned = f"{example['method_label']} on\n{datasets[target]}\n({counted(n, 'image')})"
    _draw_box(axes, (0, 9), (17, 14), fine_tuned)
    _draw_arrow(axes, (8.5, 31), (8.5, 23))
    _draw_arrow(axes, (17, 37), (24, 37), "before")
    _draw_arrow(axes, (17, 16), (24, 16), "after")
    _draw_table(axes, shown_rows, {**left_out, target: "target"}, datasets)
    change = f"mean change on\nthe other OOD datasets\n{points(ri_of_target)} points"
    _draw_box(axes, (72, 27), (27, 15), f"RI of {datasets[target]}:\n{change}")
    _draw_arrow(axes, (66, 34), (72, 34))
    repeat = ""
    if len(targets) > 1:
        repeat = f"repeat for each of {len(targets)} targets"
    _draw_arrow(axes, (85.5, 27), (85.5, 20), repeat)
    mean = (
        f"mRI: mean over {counted(len(targets), 'target')}\n{points(mri_of_method['mri'])} points"
    )
    interval = f"({points(mri_of_method['ci_low'])} to {points(mri_of_method['ci_high'])})"
    _draw_box(axes, (72, 4), (27, 16), f"{mean}\n{interval}")
    return figure, shown_rows


def _training_images(accuracy: pd.DataFrame, data: pd.DataFrame | None, target: str) -> int:
    """Images of the target for training: its train split, or all if `data` is None."""
    if data is None:
        return int(accuracy.loc[accuracy["dataset"] == target, "n"].iloc[0])
    return int(data.loc[data["dataset"] == target, "train"].iloc[0])


def _changes(accuracy: pd.DataFrame, method: str, target: str, datasets: Labels) -> pd.DataFrame:
    """Rows of the figure's table: dataset, before, after (percent), change, in display order."""
    of_pretrained = accuracy[accuracy["method"] == PRETRAINED]
    before = of_pretrained.set_index("dataset")["accuracy"]
    fine_tuned = accuracy[(accuracy["method"] == method) & (accuracy["target"] == target)]
    after = fine_tuned.groupby("dataset")["accuracy"].mean()

    changes = pd.DataFrame({"before": before, "after": after, "change": after - before})
    return changes.loc[list(datasets)].reset_index()


def _draw_box(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], text: str
) -> None:
    """Draw a box with text; `corner` is the lower left one."""
    x, y = corner
    width, height = size
    box = FancyBboxPatch(
        corner,
        width,
        height,
        boxstyle="round,pad=0,rounding_size=1.2",
        facecolor="#f0f0f0",
        edgecolor=INK,
    )
    axes.add_patch(box)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = ""
) -> None:
    """Draw an arrow; its text is right of a vertical arrow, above any other."""
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=11, color=INK, shrinkA=0, shrinkB=0
    )
    axes.add_patch(arrow)
    x = (start[0] + end[0]) / 2
    y = (start[1] + end[1]) / 2
    is_vertical = start[0] == end[0]
    if is_vertical:
        axes.text(x + 1, y, text, fontsize=7, ha="left", va="center")
    else:
        axes.text(x, y + 0.7, text, fontsize=7, ha="center", va="bottom")


def _draw_table(
    axes: Axes, shown_rows: pd.DataFrame, left_out: Mapping[str, str], datasets: Labels
) -> None:
    """Draw accuracies of each dataset; with {"noto": "target"} in `left_out`, noto is grey."""
    row_height = TABLE_HEIGHT / (len(shown_rows) + 1)
    heading: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "va": "center"}
    axes.text(LABEL_X, TABLE_TOP, "evaluated on", **heading)
    for column, x in NUMBER_X.items():
        axes.text(x, TABLE_TOP, column, ha="right", **heading)
    for i, row in enumerate(shown_rows.to_dict("records"), start=1):
        y = TABLE_TOP - i * row_height
        _draw_row(axes, y, row, datasets[row["dataset"]], left_out.get(row["dataset"]))
    axes.text(
        NUMBER_X["change"],
        TABLE_TOP - (len(shown_rows) + 1) * row_height,
        NOTE,
        fontsize=6.5,
        ha="right",
        va="center",
        color=DARK_GREY,
    )


def _draw_row(
    axes: Axes, y: float, row: Mapping[Hashable, Any], label: str, reason: str | None
) -> None:
    """Draw a dataset's accuracies and change, grey if a `reason` keeps it out of RI."""
    colour = INK
    change_colour = _change_colour(row["change"])
    if reason:
        colour = change_colour = GREY
        label += f" ({reason})"
    axes.text(LABEL_X, y, label, fontsize=_fitting_size(label), va="center", color=colour)
    number: dict[str, Any] = {"fontsize": FONT_SIZE, "ha": "right", "va": "center"}
    axes.text(NUMBER_X["before"], y, percent(row["before"]), color=colour, **number)
    axes.text(NUMBER_X["after"], y, percent(row["after"]), color=colour, **number)
    axes.text(NUMBER_X["change"], y, points(row["change"]), color=change_colour, **number)


def _fitting_size(label: str) -> float:
    """Font size in points, at most `FONT_SIZE`, at which a label ends before the numbers."""
    outline = TextPath((0, 0), label, size=FONT_SIZE, usetex=False)
    width = outline.get_extents().width
    return FONT_SIZE * min(1, LABEL_WIDTH / width)


def _change_colour(change: float) -> str:
    """Colour of the change as shown: rounded to 0, it is neither gain nor loss."""
    if math.isnan(change):
        return INK
    shown_change = rounded(change)
    if shown_change > 0:
        return GAIN
    if shown_change < 0:
        return LOSS
    return INK
